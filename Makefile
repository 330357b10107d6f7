# The two commands of this project are `make demo` and `make test`.
.PHONY: demo test build release check clean

# A compiler cache makes the second build of RocksDB a matter of seconds; without one it takes minutes.
ifneq ($(shell command -v ccache),)
export CC ?= ccache gcc
export CXX ?= ccache g++
# make defines CC and CXX itself, so `?=` alone would keep its defaults.
ifeq ($(origin CC),default)
CC := ccache gcc
endif
ifeq ($(origin CXX),default)
CXX := ccache g++
endif
endif

# A cluster on this machine, a mount, real data, dead servers, every byte compared.
demo: build
	target/debug/ff2ctl demo

# Everything that must hold before a change lands.
test:
	@deploy/install-packages.sh test
	cargo xtask check

build:
	@deploy/install-packages.sh
	cargo build --locked --workspace --bins

release:
	@deploy/install-packages.sh
	cargo build --locked --workspace --bins --release

clean:
	cargo clean
