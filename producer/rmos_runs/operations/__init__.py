"""An operator's actions and views, without terminal or HTTP; the command line is one face of them."""
