"""Jobs, sweeps and events in a database; the files of models in a folder."""
