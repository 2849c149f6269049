# walferry as an image: built and run with the packages that scripts/install-packages names, as a user without rights.
#   docker build -t walferry .                      the program
#   docker build -t walferry-writer --target writer .   the demo's application (docker-compose.yml)

FROM debian:bookworm AS build
COPY scripts/install-packages /src/scripts/
RUN /src/scripts/install-packages --build-only
COPY . /src
RUN cd /src && cmake --preset release && cmake --build --preset release --target walferry && cmake --install build/release --prefix /usr/local

FROM debian:bookworm-slim AS writer
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-psycopg2 postgresql-client-15 util-linux \
 && rm -rf /var/lib/apt/lists/*
COPY tests/live /app
USER nobody
ENTRYPOINT ["/usr/bin/python3", "/app/write.py"]

# The last stage is the default one.
FROM debian:bookworm-slim
COPY scripts/install-packages /tmp/
RUN /tmp/install-packages --runtime-only && rm -rf /tmp/install-packages /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/walferry walferry
COPY --from=build /usr/local/bin/walferry /usr/local/bin/walferry
USER walferry
VOLUME /var/lib/walferry
EXPOSE 8080
ENTRYPOINT ["walferry"]
CMD ["--help"]
