"""The use cases, shared by gRPC, the Open Inference Protocol and the live page."""
