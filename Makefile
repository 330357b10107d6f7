# The two commands of this project are `make demo` and `make test`.
.PHONY: demo test bench build release check clean

# A cluster on this machine, a mount, real data, dead servers, every byte compared.
demo: build
	target/debug/ff2ctl demo

# Everything that must hold before a change lands.
test:
	@deploy/install-packages.sh test
	@command -v chromium >/dev/null || { \
		echo "SKIPPED: no chromium here: the status page is not looked at with a browser" >&2; \
		export FF2_TEST_ALLOW_SKIP=$${FF2_TEST_ALLOW_SKIP:-chromium}; }; \
	[ -d /sys/fs/cgroup/blkio ] || { \
		echo "SKIPPED: no control groups of the first version for disks here: a slow disk is not tried" >&2; \
		export FF2_TEST_ALLOW_SKIP=$${FF2_TEST_ALLOW_SKIP:+$$FF2_TEST_ALLOW_SKIP,}blkio; }; \
	{ grep -qsw memory /sys/fs/cgroup/cgroup.controllers && [ -w /sys/fs/cgroup/cgroup.procs ] && \
		[ ! -d /run/systemd/system ]; } || { \
		echo "SKIPPED: no cgroup v2 hierarchy here that is the tests' to divide: confined in a virtual machine only" >&2; \
		export FF2_TEST_ALLOW_SKIP=$${FF2_TEST_ALLOW_SKIP:+$$FF2_TEST_ALLOW_SKIP,}cgroup2; }; \
	[ -n "$$(ls /sys/class/infiniband 2>/dev/null)" ] || { \
		echo "SKIPPED: no RDMA device here: RDMA is tried in a virtual machine only" >&2; \
		export FF2_TEST_ALLOW_SKIP=$${FF2_TEST_ALLOW_SKIP:+$$FF2_TEST_ALLOW_SKIP,}rdma; }; \
	command -v qemu-system-x86_64 >/dev/null || { \
		echo "SKIPPED: no qemu-system-x86_64 here: neither RDMA nor, without cgroup v2, confinement is tried" >&2; \
		export FF2_TEST_ALLOW_SKIP=$${FF2_TEST_ALLOW_SKIP:+$$FF2_TEST_ALLOW_SKIP,}qemu; }; \
	echo "cargo xtask check"; cargo xtask check

# The table of docs/BENCHMARKS.md, made on a cluster that comes and goes.
BENCH_DIR ?= /var/tmp/ff2-bench
bench: build
	@deploy/install-packages.sh bench
	target/debug/ff2ctl --dir $(BENCH_DIR)/cluster up --mount $(BENCH_DIR)/mnt
	target/debug/ff2ctl --dir $(BENCH_DIR)/cluster bench all --markdown; status=$$?; \
	target/debug/ff2ctl --dir $(BENCH_DIR)/cluster down --purge && \
	rmdir $(BENCH_DIR) && exit $$status

build:
	@deploy/install-packages.sh
	cargo build --locked --workspace --lib --bins

release:
	@deploy/install-packages.sh
	cargo build --locked --workspace --lib --bins --release

check: test

clean:
	cargo clean
