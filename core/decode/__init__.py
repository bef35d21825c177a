"""Decoders: verbatim evidence in, typed values of `calico_debug.model` out. Raw text and bytes end here."""
