#!/bin/sh
# Install Chromium, in which the pages of reports are tested, where this is Debian and we may; else say so and go on.
set -u
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "no browser is here, and only root on Debian can install one: the tests of pages in a browser will be skipped" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq chromium >/dev/null ||
  echo "Chromium could not be installed: the tests of pages in a browser will be skipped" >&2
