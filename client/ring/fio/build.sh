#!/bin/sh
# Builds the fio engine here: build.sh FIO_SOURCE LIBRARY_FOLDER
# FIO_SOURCE: source of the fio that runs (`apt-get source fio`), after its ./configure.
# LIBRARY_FOLDER: where libff2_ring.so lies (target/release).
set -eu
if [ $# -ne 2 ] || [ ! -e "$1/config-host.h" ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
here=$(dirname "$(readlink -f "$0")")
library=$(readlink -f "$2")
cc -std=gnu11 -O2 -Wall -fPIC -shared -rdynamic -D_GNU_SOURCE \
    -include "$1/config-host.h" -I "$1" -I "$here/../include" \
    "$here/ff2_ring_engine.c" -o ff2_ring_engine.so \
    -L "$library" -Wl,-rpath,"$library" -lff2_ring
