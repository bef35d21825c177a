"""Where evidence comes from. A live node and a bundle on disk are two sources of the same verbatim evidence."""
