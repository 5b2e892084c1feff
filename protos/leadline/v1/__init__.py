"""The public contract: messages and services, generated from the `.proto` files in this folder."""
