//! Just enough of HTTP/1.1: heads, and bodies by length, by chunks, or until the end.

use std::io::{self, BufRead, Read, Write};

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without the question mark; empty when there is none.
    pub query: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// Carries its signature in the address: what an agent does with a grant.
    #[must_use]
    pub fn is_presigned(&self) -> bool {
        self.query.contains("X-Amz-Signature=")
    }
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// A head as it came.
pub struct Head {
    pub raw: Vec<u8>,
    pub first: String,
    pub headers: Vec<(String, String)>,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    ToEnd,
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Head {
    /// The next head; `None` when the connection ended before it.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        let mut lines = Vec::new();
        loop {
            let start = raw.len();
            if from.read_until(b'\n', &mut raw)? == 0 {
                return if raw.is_empty() { Ok(None) } else { Err(bad("a head without an end")) };
            }
            let line = String::from_utf8_lossy(&raw[start..]).trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
            if raw.len() > 256 << 10 {
                return Err(bad("an endless head"));
            }
        }
        let mut lines = lines.into_iter();
        let first = lines.next().ok_or_else(|| bad("an empty head"))?;
        let headers = lines
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect();
        Ok(Some(Self { raw, first, headers }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn request(&self) -> io::Result<Request> {
        let mut words = self.first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(bad("no request line"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: self.headers.clone(),
        })
    }

    /// Of an answer.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    fn framing(&self, otherwise: Framing) -> Framing {
        let chunked = self.header("transfer-encoding").is_some_and(|how| how.contains("chunked"));
        let length = self.header("content-length").and_then(|text| text.parse().ok());
        match length {
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }
    pub fn request_framing(&self) -> Framing {
        self.framing(Framing::Length(0))
    }
    pub fn answer_framing(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Framing::Length(0);
        }
        self.framing(Framing::ToEnd)
    }

    /// The same head with another length.
    pub fn with_length(&self, length: u64) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            if name != "content-length" && name != "transfer-encoding" {
                text.extend([name, ": ", value, "\r\n"]);
            }
        }
        text.extend(["content-length: ", &length.to_string(), "\r\n\r\n"]);
        text.into_bytes()
    }
}

/// Copies a body as it is on the wire. `to` sees every byte, and stops the copy by an error.
pub fn copy_body(from: &mut impl BufRead, framing: Framing, to: &mut impl Write) -> io::Result<()> {
    match framing {
        Framing::Length(length) => copy_exactly(from, length, to),
        Framing::ToEnd => copy(from, to).map(drop),
        Framing::Chunked => loop {
            let mut line = Vec::new();
            from.read_until(b'\n', &mut line)?;
            to.write_all(&line)?;
            let text = String::from_utf8_lossy(&line);
            let digits = text.trim().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|_| bad("no chunk size"))?;
            if size > 0 {
                copy_exactly(from, size + 2, to)?;
                continue;
            }
            // Trailers end with an empty line.
            loop {
                let mut line = Vec::new();
                from.read_until(b'\n', &mut line)?;
                to.write_all(&line)?;
                if line == b"\r\n" || line.is_empty() {
                    return Ok(());
                }
            }
        },
    }
}

fn copy_exactly(from: &mut impl BufRead, length: u64, to: &mut impl Write) -> io::Result<()> {
    let copied = copy(&mut from.take(length), to)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = [0; 16 << 10];
    let mut copied = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..read])?;
        copied += read as u64;
    }
}
