"""Figures in, tables and pictures out."""
