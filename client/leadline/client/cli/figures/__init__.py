"""The pictures that the command line writes."""
