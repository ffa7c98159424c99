"""What makes two texts equal."""

import pytest

from mmbench.data.preparing.texts import words
from mmbench.data.sets.mvsa import Mvsa

SAME = {
    "composed": ("Caf\u00e9 cr\u00e8me", "Cafe\u0301 cre\u0300me"),
    "entity": ("Mac & cheese", "Mac &amp; cheese"),
    "entity, escaped twice": (
        "Anna&#39;s pie",
        "Anna&amp;#39;s pie",
        "Anna&amp;amp;#x27;s pie",
        "Anna\u2019s pie",
        "Anna's pie",
    ),
    "full width": ("Sushi 100%", "\uff33\uff55\uff53\uff48\uff49\u3000\uff11\uff10\uff10\uff05"),
    "blanks": ("apple pie", "apple\u00a0pie", "apple\u2009pie", "apple \t\n pie", " apple&nbsp;pie "),
    "unseen": (
        "cheesecake",
        "cheese\u00adcake",
        "cheese\u200bcake",
        "cheese&shy;cake",
        "\ufeffcheese\u2060cake\u200e",
        "cheese\ufe0fcake",
    ),
    "case": ("Stra\u00dfe", "STRASSE", "stra\u1e9ee"),
    "ligatures": ("filet \ufb01ne", "filet fine", "FILET FINE"),
    "quotation marks": ('"Best" pie', "\u201cBest\u201d pie", "\u00abBest\u00bb pie", "&quot;Best&quot; pie"),
    "signs only": ("???", "\uff1f\uff1f\uff1f", " ??? "),
    "dotted I": ("\u0130stanbul", "I\u0307stanbul", "i\u0307stanbul"),
    "nothing": ("", "\u200b", "&nbsp;", " \u2003\ufeff"),
}
OTHER = [
    ("apple pie", "applepie"),
    ("caf\u00e9", "cafe"),
    ("pie 1", "pie 2"),
    ("???", "?!"),
    ("\u0441up", "cap"),
    ("a", ""),
]


@pytest.mark.parametrize("name", SAME)
def test_texts_that_are_equal_to_the_eye_are_equal(name):
    assert len({words(text) for text in SAME[name]}) == 1
    assert (words(SAME[name][0]) == "") == (name == "nothing")


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_texts_are_not(one, other):
    assert words(one) != words(other)


def test_copies_of_a_tweet_are_equal():
    assert Mvsa.text_key("RT @a: Caf\u00e9 & sun http://t.co/1") == Mvsa.text_key("Cafe\u0301 &amp; sun https://t.co/2")
    assert Mvsa.text_key("http://t.co/1") != Mvsa.text_key("http://t.co/2"), "of links alone, the links count"
