"""The gRPC services: convert, call the domain, convert back."""
