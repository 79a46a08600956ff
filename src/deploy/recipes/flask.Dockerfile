FROM {image}
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
RUN chown 65534:65534 /app
{install}
ENV PORT=8080 HOME=/tmp
EXPOSE 8080
USER 65534:65534
CMD ["sh", "-c", "exec python3 -m gunicorn --bind \"0.0.0.0:$PORT\" --threads 8 --graceful-timeout 8 --worker-tmp-dir /dev/shm {module}"]
