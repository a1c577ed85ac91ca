"""Imports the fairseq half of the project, so that its classes register."""
