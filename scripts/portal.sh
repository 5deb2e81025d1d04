#!/usr/bin/env bash
# Builds the portal into web/dist when it is missing or older than its sources. Without Node: says so and goes on.
set -euo pipefail
cd "$(dirname "$0")/../web"
if ! command -v npm >/dev/null; then
  echo "portal: Node is missing, so the portal is not built; the API and the agent work without it"
  exit 0
fi
if [ -e dist/index.html ] && [ -z "$(find src public index.html package-lock.json vite.config.ts -newer dist/index.html -print -quit 2>/dev/null)" ]; then exit 0; fi
[ -e node_modules/.ok ] && [ ! package-lock.json -nt node_modules/.ok ] || { npm ci --silent --no-audit --no-fund && touch node_modules/.ok; }
npm run --silent build
