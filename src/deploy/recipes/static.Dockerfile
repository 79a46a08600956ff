FROM {image}
COPY httpd.conf /etc/httpd.conf
ENV PORT=8080
EXPOSE 8080
USER 65534:65534
CMD ["/bin/busybox", "sh", "-c", "exec /bin/busybox httpd -f -p \"$PORT\" -h /srv -c /etc/httpd.conf"]
COPY app/ /srv/
