#!/bin/sh
# Install SLURM's daemons and what they need, where this is Debian (or Ubuntu) and we may; else say so and go on.
set -u
if command -v sbatch >/dev/null && [ -x /usr/sbin/slurmdbd ] && [ -x /usr/sbin/munged ] && [ -x /usr/sbin/mariadbd ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "SLURM is not here, and only root on Debian can install it: the tests on SLURM will be skipped" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq slurm-wlm slurmdbd munge mariadb-server >/dev/null ||
  echo "SLURM could not be installed: the tests on SLURM will be skipped" >&2
