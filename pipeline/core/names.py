"""Names as Kubernetes takes them: patterns that specs of the manifest and of targets share."""

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # RFC 1123; 63 characters at most
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"  # RFC 1123; 253 characters at most
SERVICE_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"  # RFC 1035: names of Services begin with a letter
