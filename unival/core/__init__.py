"""What everything else stands on: paths, options, recipes, seeds, files written whole."""
