FROM {image} AS build
WORKDIR /app
{install}
{args}
RUN set -e; npm run build; \
    for folder in dist build; do if [ -f $folder/index.html ]; then mv $folder /site; exit 0; fi; done; \
    echo "npm run build left neither dist/index.html nor build/index.html" >&2; exit 1

FROM {image}
COPY spa.mjs /muelle/spa.mjs
ENV NODE_ENV=production PORT=8080
EXPOSE 8080
USER 65534:65534
CMD ["node", "/muelle/spa.mjs"]
COPY --from=build /site /srv
