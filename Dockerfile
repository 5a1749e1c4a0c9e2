# The program is static, so the image holds it and the certificates that it trusts, and nothing else.
# Both architectures: docker buildx build --platform linux/amd64,linux/arm64 .

FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm AS build
ARG BUILDARCH
ARG TARGETARCH
# Else rustup would follow rust-toolchain.toml and fetch what only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
# The program is always compiled where the build runs; for another architecture that takes another linker.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates make \
    $(test "$BUILDARCH" = "$TARGETARCH" || case "$TARGETARCH" in \
      amd64) echo gcc-x86-64-linux-gnu libc6-dev-amd64-cross ;; \
      arm64) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;; \
    esac) \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target,id=target-$TARGETARCH \
    make image-program ARCH="$TARGETARCH" \
 && install -D --mode=0555 --target-directory=/out target/*-unknown-linux-musl/image/acrcred

FROM scratch
LABEL org.opencontainers.image.title="acrcred" \
      org.opencontainers.image.description="Keeps image pull Secrets for Azure Container Registry alive without a stored password" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/acrcred /acrcred
# Nobody's: a number, so that runAsNonRoot can be checked.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/acrcred"]
