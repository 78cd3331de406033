"""XML without what makes it dangerous: a document that declares a type, and with it entities, is refused.

The standard library's parser reads no other files, and entities cannot be declared elsewhere, so that nothing is left
of what defusedxml guards against. Here too: how flags are written. Not here: what the elements mean.
"""

from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

FLAG_IN_WORDS = "flags that are set by another word than 1, such as true: taken for set"
"""What it is called where it is told."""


class XmlError(ValueError):
    """Why a document is not read."""


class _Builder(TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called before what the declaration holds is read."""
        raise XmlError(f"it declares a document type (<!DOCTYPE {name} ...>), which may define entities: remove it")


def is_true(text: str | None) -> bool:
    """Returns whether a flag is set: 1 in most files, in some another number or a word."""
    return (text or "").strip().lower() in ("1", "1.0", "true", "yes")


def parse_xml(document: bytes) -> Element:
    """Returns the root element. Raises XmlError where the document is not well-formed, or declares a type."""
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(document)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise XmlError(str(error)) from error
    return root
