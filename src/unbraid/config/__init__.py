"""Configuration: settings with bounds, written as JSON and read back by public name."""
