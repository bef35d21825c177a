# The agent and the command line in one image. BASE may be any Debian 12 with apt, one made locally too: make test-image
# makes one. Versions of Debian's packages are those of BASE and its sources; Python's are in constraints.txt, all of them.
ARG BASE=debian:12.12-slim

FROM ${BASE} AS build
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update && apt-get install --yes --no-install-recommends clang python3 python3-venv
WORKDIR /src
COPY daemonset/constraints.txt constraints.txt
# python3-bpfcc is Debian's: the environment sees the system's packages.
RUN python3 -m venv --system-site-packages /opt/calico-debug && \
    /opt/calico-debug/bin/pip install --constraint constraints.txt setuptools wheel
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY core core
COPY agent agent
COPY cli cli
# The Kubernetes client's asynchronous half, which is not used, is the larger one.
RUN /opt/calico-debug/bin/pip install --constraint constraints.txt --no-build-isolation '.[agent]' && \
    rm -r /opt/calico-debug/lib/python3*/site-packages/kubernetes/aio && \
    /opt/calico-debug/bin/pip uninstall --yes aiohttp aiohttp-retry setuptools wheel pip
# The tracing program's object, beside its source: the image has no compiler.
RUN /opt/calico-debug/bin/python -m calico_debug.agent.packets.program

FROM ${BASE}
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="calico-debug" \
      org.opencontainers.image.description="Why did Calico allow or deny this flow?" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
# Nobody in it becomes somebody else: no program is setuid or setgid.
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      bpftool conntrack ipset iproute2 iptables nftables python3 python3-bpfcc && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/* && \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /opt/calico-debug /opt/calico-debug
# Nothing is written but the socket, in a volume: the root file system may be read-only.
ENV PATH=/opt/calico-debug/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["calico-debug"]
CMD ["agent"]
