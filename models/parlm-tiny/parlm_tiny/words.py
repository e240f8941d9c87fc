"""The closed vocabularies that the generators draw from.

They are small on purpose: with about 2,000 tokens each of these words is one token, which is
what lets a network of five million parameters learn to copy them within an hour.
"""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def phrases(text: str) -> list[str]:
    """The phrases of a text, which commas separate."""
    return [" ".join(phrase.split()) for phrase in text.split(",")]


NAMES = listed(
    """
    Alice Adam Anna Ben Bella Carl Clara David Diana Emma Eric Eva Felix Fiona Frank Grace
    George Hannah Henry Ida Ivan Jack Julia Kate Kevin Laura Leo Lucy Maria Mark Max Mia Nina
    Noah Olga Oscar Paul Peter Rosa Ruth Sam Sara Tom Tina Victor Vera Walter Yusuf Zoë José
    Łukasz 小明
    """
)

CITIES = listed(
    """
    Paris London Berlin Madrid Rome Vienna Lisbon Dublin Oslo Prague Athens Warsaw Boston
    Chicago Tokyo Delhi Cairo Lima Toronto Sydney Geneva Milan Porto Kyoto München 北京
    """
)

JOBS = listed(
    """
    teacher doctor nurse baker pilot farmer lawyer writer singer painter driver cook gardener
    sailor librarian carpenter
    """
)

ANIMALS = listed("cat dog horse rabbit parrot turtle hamster goat")
COLORS = listed("red blue green yellow black white brown purple orange grey")
FOODS = listed("pizza soup rice pasta salad bread cheese apples cake curry")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed(
    """
    January February March April May June July August September October November December
    """
)
THINGS = listed("books chairs lamps cups pens boxes bags coins plates keys")
SPORTS = listed("tennis football chess swimming golf hockey")
LANGUAGES = listed("French German Spanish Italian Polish Japanese")
COMPANIES = listed("Acme Orbit Nimbus Vertex Lumen Cobalt Solaris Quartz")
