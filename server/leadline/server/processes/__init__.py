"""The serving processes beside the main one."""
