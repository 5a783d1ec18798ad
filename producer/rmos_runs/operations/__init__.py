"""What an operator does and looks at, with neither terminal nor HTTP: the command line is one face of it."""
