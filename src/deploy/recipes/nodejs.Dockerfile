FROM {image}
WORKDIR /app
RUN chown 65534:65534 /app
{install}
{args}
{build}
ENV NODE_ENV=production PORT=8080 HOME=/tmp NPM_CONFIG_UPDATE_NOTIFIER=false NPM_CONFIG_LOGS_MAX=0
EXPOSE 8080
USER 65534:65534
CMD ["npm", "start"]
