"""From a completion to its reward: parsing, fact checking, components and schemes."""
