"""Suites that every store must pass; subclass them in a store's own tests."""
