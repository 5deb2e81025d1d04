//! One connection: request after request, each carried to the server as its fault says.

use std::{
    io::{self, BufReader, Read as _, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use super::{
    Fault, Shared,
    http::{Framing, Head, Request, copy_body},
};

/// Until the connection ends, whoever ends it.
pub fn serve(client: &TcpStream, shared: &Shared) {
    let _ = client.set_nodelay(true);
    let _ = requests(client, shared);
    let _ = client.shutdown(Shutdown::Both);
}

/// Whether another request may come on this connection.
#[derive(PartialEq, Eq)]
enum Then {
    Next,
    End,
}

fn requests(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    while let Some(head) = Head::read(&mut reader)? {
        let request = head.request()?;
        let (number, fault) = shared.decide(&request);
        let mut turn = Turn { client, reader: &mut reader, shared, head, request, number };
        if turn.carry(fault)? == Then::End {
            return Ok(());
        }
    }
    Ok(())
}

struct Turn<'a, 'b> {
    client: &'a TcpStream,
    reader: &'b mut BufReader<&'a TcpStream>,
    shared: &'a Shared,
    head: Head,
    request: Request,
    number: usize,
}

impl Turn<'_, '_> {
    fn carry(&mut self, fault: Option<Fault>) -> io::Result<Then> {
        match fault {
            Some(Fault::Refuse) => Ok(Then::End),
            Some(Fault::Answer { status, content_type, body }) => {
                self.drain()?;
                self.say(status, content_type, &body)
            }
            Some(Fault::Stall) => {
                self.drain()?;
                self.hold();
                Ok(Then::End)
            }
            Some(Fault::Delay(time)) => {
                if self.shared.pause(time) {
                    return Ok(Then::End);
                }
                self.forward(None)
            }
            other => self.forward(other.as_ref()),
        }
    }

    /// Reads the request's body for nobody.
    fn drain(&mut self) -> io::Result<()> {
        if self.head.header("expect").is_some() {
            (&*self.client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        copy_body(self.reader, self.head.request_framing(), &mut io::sink())
    }

    fn say(&self, status: u16, content_type: &str, body: &str) -> io::Result<Then> {
        let body = if self.request.method == "HEAD" { "" } else { body };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} Fault\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        );
        (&*self.client).write_all(text.as_bytes())?;
        Ok(Then::End)
    }

    /// Until the caller gives up or the proxy ends.
    fn hold(&self) {
        let _ = self.client.set_read_timeout(Some(Duration::from_millis(50)));
        loop {
            match (&*self.client).read(&mut [0; 64]) {
                Ok(0) => return,
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return;
                }
                Ok(_) | Err(_) => {}
            }
            if self.shared.pause(Duration::ZERO) {
                return;
            }
        }
    }

    fn forward(&mut self, fault: Option<&Fault>) -> io::Result<Then> {
        let upstream = TcpStream::connect(self.shared.upstream)?;
        upstream.set_nodelay(true)?;
        (&upstream).write_all(&self.head.raw)?;
        let framing = self.head.request_framing();
        let (client, shared, number) = (self.client, self.shared, self.number);
        let method = self.request.method.clone();
        let reader = &mut *self.reader;
        std::thread::scope(|scope| {
            let server = &upstream;
            let body = scope.spawn(move || send_body(reader, framing, server, shared, fault));
            let note = |status| shared.answered(number, status);
            let answered = answer(&upstream, client, &method, fault, note);
            if !matches!(answered, Ok(Then::Next)) {
                // Both sides go; the thread that still waits for the rest of a body goes with them.
                let _ = upstream.shutdown(Shutdown::Both);
                let _ = client.shutdown(Shutdown::Both);
            } else if !body.is_finished() && framing != Framing::Length(0) {
                // Answered before all was said: what is still to come has no reader.
                let _ = client.shutdown(Shutdown::Read);
            }
            let sent = body.join().unwrap_or(Ok(()));
            Ok(if sent.is_ok() { answered? } else { Then::End })
        })
    }
}

/// What goes to the server: counted, slowed, cut.
struct Toward<'a> {
    upstream: &'a TcpStream,
    shared: &'a Shared,
    cut_after: Option<u64>,
    rate: Option<u64>,
    sent: u64,
    since: Instant,
}

impl Write for Toward<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.cut_after.map_or(u64::MAX, |after| after.saturating_sub(self.sent));
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.upstream.write_all(&bytes[..part])?;
        self.sent += part as u64;
        if part < bytes.len() || (left == part as u64 && self.cut_after.is_some()) {
            let _ = self.upstream.shutdown(Shutdown::Both);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.sent as f64 / rate.max(1) as f64);
            self.shared.pause(due.saturating_sub(self.since.elapsed()));
        }
        Ok(part)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send_body(
    reader: &mut BufReader<&TcpStream>,
    framing: Framing,
    upstream: &TcpStream,
    shared: &Shared,
    fault: Option<&Fault>,
) -> io::Result<()> {
    let (cut_after, rate) = match fault {
        Some(Fault::CutRequest { after }) => (Some(*after), None),
        Some(Fault::Slow { bytes_per_second }) => (None, Some(*bytes_per_second)),
        _ => (None, None),
    };
    if cut_after == Some(0) {
        return upstream.shutdown(Shutdown::Both);
    }
    let since = Instant::now();
    let mut toward = Toward { upstream, shared, cut_after, rate, sent: 0, since };
    copy_body(reader, framing, &mut toward)
}

/// What goes back: cut, or with one bit turned.
struct Back<'a> {
    client: &'a TcpStream,
    cut_after: Option<u64>,
    flip: Option<u64>,
    sent: u64,
}

impl Write for Back<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut bytes = bytes.to_vec();
        let (from, whole) = (self.sent, bytes.len());
        if let Some(at) = self.flip.and_then(|at| at.checked_sub(from))
            && let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at))
        {
            *byte ^= 1;
        }
        if let Some(after) = self.cut_after {
            bytes.truncate(usize::try_from(after.saturating_sub(from)).unwrap_or(usize::MAX));
        }
        self.client.write_all(&bytes)?;
        self.sent += bytes.len() as u64;
        if bytes.len() < whole {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(whole)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer(
    upstream: &TcpStream,
    mut client: &TcpStream,
    method: &str,
    fault: Option<&Fault>,
    note: impl Fn(u16),
) -> io::Result<Then> {
    let mut reader = BufReader::new(upstream);
    let head = loop {
        let head = Head::read(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !matches!(head.status(), 100..=199) {
            break head;
        }
        client.write_all(&head.raw)?;
    };
    note(head.status());
    let framing = head.answer_framing(method);
    match fault {
        Some(Fault::LoseAnswer) => {
            copy_body(&mut reader, framing, &mut io::sink())?;
            return Ok(Then::End);
        }
        Some(Fault::ReplaceAnswer { status, content_type, body }) => {
            copy_body(&mut reader, framing, &mut io::sink())?;
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status} Fault\r\ncontent-type: {content_type}\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            client.write_all(text.as_bytes())?;
            return Ok(Then::End);
        }
        Some(Fault::ShortAnswer { length }) => {
            let mut body = Vec::new();
            copy_body(&mut reader, framing, &mut body)?;
            body.truncate(usize::try_from(*length).unwrap_or(usize::MAX));
            client.write_all(&head.with_length(body.len() as u64))?;
            client.write_all(&body)?;
            return Ok(Then::End);
        }
        _ => {}
    }
    client.write_all(&head.raw)?;
    let cut_after = match fault {
        Some(Fault::CutAnswer { after }) => Some(*after),
        _ => None,
    };
    let flip = match fault {
        Some(Fault::FlipBit { at }) => Some(*at),
        _ => None,
    };
    copy_body(&mut reader, framing, &mut Back { client, cut_after, flip, sent: 0 })?;
    let closes = head.header("connection").is_some_and(|how| how.eq_ignore_ascii_case("close"));
    Ok(if closes || framing == Framing::ToEnd { Then::End } else { Then::Next })
}
