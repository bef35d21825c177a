# The agent and the command line in one image. BASE may be any Debian 12 with apt, one made locally too.
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
RUN /opt/calico-debug/bin/pip install --constraint constraints.txt --no-build-isolation '.[agent]' && \
    /opt/calico-debug/bin/pip uninstall --yes setuptools wheel
# The tracing program's object, beside its source: the image has no compiler.
RUN /opt/calico-debug/bin/python -m calico_debug.agent.packets.program

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="calico-debug" \
      org.opencontainers.image.description="Why did Calico allow or deny this flow?" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      bpftool conntrack ipset iproute2 iptables nftables python3 python3-bpfcc && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/calico-debug /opt/calico-debug
# Nothing is written but the socket, in a volume: the root file system may be read-only.
ENV PATH=/opt/calico-debug/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["calico-debug"]
CMD ["agent"]
