"""Schedulers behind one interface, a module each."""
