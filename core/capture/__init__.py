"""Captures: which packets are meant, whose flow a packet is, what is predicted for it, and the file that holds them."""
