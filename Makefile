# Two commands: make demo (see it work) and make test (check it). Each installs what is missing first.
SHELL := /bin/bash
PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := python3-venv python3-nftables python3-bpfcc bpftool nftables iproute2 conntrack ipset iptables clang tshark zsh fish
BROWSER_PACKAGES := chromium chromium-driver
CLUSTER_PACKAGES := etcd-server openssl
IMAGE_PACKAGES := buildah mmdebstrap
# The installed package maps calico_debug to core/, agent/ and cli/; linters want one plain tree.
TREE := build/tree

# Tests often wait for packets, so one more than there are processors keeps these busy.
WORKERS = $(shell echo $$(($$(nproc) + 1)))

.PHONY: setup demo test test-kernel test-cluster test-prometheus test-browser test-image test-endurance bench pictures lint format clean

setup: $(VENV)/.complete

$(VENV)/.complete: setup.cfg pyproject.toml Makefile tests/tools/install_system_packages.sh
	@tests/tools/install_system_packages.sh $(APT_PACKAGES)
	@test -x $(BIN)/python || $(PYTHON) -m venv --system-site-packages $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip 'setuptools>=77' wheel
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[agent,dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m tests.lab.demo

test: setup
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow and not cluster and not browser and not image and not endurance"

test-kernel: setup
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m slow

test-cluster: setup
	@tests/tools/install_system_packages.sh $(CLUSTER_PACKAGES)
	@tests/tools/test_cluster.sh

test-prometheus: setup
	@tests/tools/install_system_packages.sh prometheus
	@$(BIN)/python -m pytest tests/daemonset

test-browser: setup
	@tests/tools/install_system_packages.sh $(BROWSER_PACKAGES)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'selenium>=4.20'
	@$(BIN)/python -m pytest tests/browser

pictures: setup
	@tests/tools/install_system_packages.sh prometheus
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'matplotlib>=3.9'
	@$(BIN)/python -m tests.daemonset.pictures

test-image: setup
	@tests/tools/install_system_packages.sh $(IMAGE_PACKAGES)
	@$(BIN)/python -m pytest -m image -rP

test-endurance: setup
	@$(BIN)/python -m pytest -m endurance -rP

bench: setup
	@tests/tools/install_system_packages.sh iperf3 tcpdump
	@$(BIN)/python -m tests.bench

lint: setup $(TREE)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@cd $(TREE) && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../setup.cfg --cache-dir ../../.mypy_cache -p calico_debug
	@PYTHONPATH=$(TREE) $(BIN)/lint-imports --config setup.cfg --no-cache

format: setup
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.PHONY: $(TREE)
$(TREE):
	@rm -rf $(TREE) && mkdir -p $(TREE)/calico_debug
	@ln -s $(CURDIR)/core/* $(TREE)/calico_debug/
	@ln -s $(CURDIR)/agent $(CURDIR)/cli $(TREE)/calico_debug/

clean:
	@rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
