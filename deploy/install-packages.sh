#!/bin/sh
# Installs what a fresh Debian machine with Rust lacks to build and run ff2. Does nothing, and needs no
# root, where everything is there already.
#
#   deploy/install-packages.sh          to build and run
#   deploy/install-packages.sh test     also to test
#   deploy/install-packages.sh bench    also to measure the disk (`ff2ctl bench`)
set -eu

# The version that the checks were last run with; another one that is there already is left alone.
nextest_version=0.9.143
pjdfstest_version=0.2.2
fsx_version=0.3.2

# Building RocksDB and its bindings: g++, libclang-dev. raft-rs generates its messages with protoc.
# The layouts of RDMA's structures: the headers of libibverbs. (To run without RDMA takes neither.)
# Mounting: fuse3. Asking a model that is served: curl.
packages="g++ make pkg-config libclang-dev protobuf-compiler libibverbs-dev librdmacm-dev fuse3 curl"

case "${1-}" in
"") ;;
# Another program than the test locks files, and python3 can.
# setfacl and getfacl set and show ACLs.
test)
    # pjdfstest is built from its crate, and links to libacl.
    packages="$packages acl libacl1-dev"
    # Cutting links between processes in a network namespace.
    packages="$packages iproute2 nftables"
    # Our forwarding tables beside those of OpenSM, on a simulated network.
    packages="$packages opensm ibsim-utils"
    # Suites that are run on a mount, and what users run.
    packages="$packages attr dbench fio rsync stress-ng"
    for program in git python3; do
        command -v "$program" >/dev/null || packages="$packages $program"
    done
    # The Python package is tested in an environment of its own, which pip fills.
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
    ;;
bench) packages="$packages fio iperf3" ;;
*)
    echo "usage: $0 [test | bench]" >&2
    exit 2
    ;;
esac

is_installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'
}

# Installs what is named, all or nothing.
install() {
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "install these packages as root, then try again: $*" >&2
            return 1
        }
        as_root=sudo
    fi
    echo "installing: $*"
    $as_root apt-get update -qq &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}

missing=
for package in $packages; do
    is_installed "$package" || missing="$missing $package"
done
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # one word a package
    install $missing
fi

# A browser looks at the status page. It is large, and Ubuntu has it only as a snap: the tests do without.
if [ "${1-}" = test ] && ! command -v chromium >/dev/null; then
    install chromium || echo "chromium cannot be installed: the status page will not be rendered" >&2
fi

# Tests of RDMA and of control groups run in a virtual machine, made of these and of a kernel that is only unpacked.
if [ "${1-}" = test ]; then
    missing=
    for package in qemu-system-x86 busybox-static cpio kmod xz-utils zstd ibverbs-providers; do
        is_installed "$package" || missing="$missing $package"
    done
    # shellcheck disable=SC2086 # one word a package
    [ -z "$missing" ] || install $missing ||
        echo "qemu cannot be installed: nothing will be tested in a virtual machine" >&2
fi

if [ "${1-}" = test ] && ! command -v cargo-nextest >/dev/null; then
    echo "installing cargo-nextest $nextest_version"
    cargo install --locked --quiet --version "$nextest_version" cargo-nextest
fi

if [ "${1-}" = test ] && ! command -v pjdfstest >/dev/null; then
    echo "installing pjdfstest $pjdfstest_version"
    cargo install --locked --quiet --version "$pjdfstest_version" pjdfstest
fi

if [ "${1-}" = test ] && ! command -v fsx >/dev/null; then
    echo "installing fsx $fsx_version"
    cargo install --locked --quiet --version "$fsx_version" fsx
fi
