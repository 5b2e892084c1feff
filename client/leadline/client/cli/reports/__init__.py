"""Reports: a job, a sweep or a comparison as one HTML page."""
