"""How files of annotations write single values: numbers and flags as text, and the XML around them."""
