"""How much of one name another one says: their words weighed by how rare they are, and matched
over inflections, spellings, an organ and its adjective, and words that stand for one another in
the synonyms of HPO ('bleeding' and 'hemorrhage').
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from itertools import combinations

from rapidfuzz import fuzz

from medaction.kg.hpo import load_hpo
from medaction.kg.linking import Linker
from medaction.kg.opposites import opposition
from medaction.kg.readings import ORGANS, bag
from medaction.words.names import normalise

Words = frozenset[str]

EXCHANGED = 3
"""HPO's terms in which one word replaces another, from which the two mean the same (our choice).
One term may be a mistake or a special sense."""

SPELLED_ALIKE = 90
"""Likeness in per cent (rapidfuzz) from which two long words are spellings of one (our choice)."""


class WordShares:
    """Shares of words by the weights of a linker's graph: each word 1 in one of the graph's names,
    towards 0 in all; 0.5 for a word that no name has."""

    def __init__(self, linker: Linker):
        names = list(linker.name_words())
        counts = Counter(word for words in names for word in words)
        # Logarithms: a word in 10 names says little less than one in a single name.
        most = math.log(len(names) + 1)
        self._weights = {word: 1 - math.log(count + 1) / most for word, count in counts.items()}

    def weight(self, words: Iterable[str]) -> float:
        return sum(self._weights.get(word, 0.5) for word in words)

    def share(self, words: Words, others: Words) -> float:
        """The share of `words`, by weight, that `others` say too; 0 of no words."""
        said = [word for word in words if any(same_word(word, other) for other in others)]
        return self.weight(said) / self.weight(words) if words else 0.0


word_shares: Callable[[Linker], WordShares] = lru_cache(maxsize=4)(WordShares)


@cache
def words_of(text: str) -> Words:
    return bag(normalise(text))


@cache
def same_word(word: str, other: str) -> bool:
    """Whether two words say the same: 'physiologic' and 'physiological', 'renal' and 'kidney';
    never 'hypo-' and 'hyper-'."""
    if word == other or ORGANS.get(word, word) == ORGANS.get(other, other):
        return True
    if frozenset((word, other)) in exchanged_words():
        return True
    short, long = sorted((word, other), key=len)
    # Short words differ by a letter: 'ileum' and 'ilium'. One beginning: not 'hypo' and 'hyper'.
    if len(short) < 6 or short[:4] != long[:4]:
        return False
    # 'physiologic', 'physiological'; else a spelling, as 'haemorrhage'.
    return (long.startswith(short) and len(long) - len(short) <= 2) or (
        fuzz.ratio(word, other) >= SPELLED_ALIKE
    )


@cache
def exchanged_words() -> frozenset[Words]:
    """Pairs of words by which two names of one term differ, in at least EXCHANGED of HPO's terms:
    'Bleeding of the skin' is a synonym of 'Hemorrhage of the skin'."""
    terms: Counter[Words] = Counter()
    for term in load_hpo().phenotypes.values():
        # In one order, for the same pairs in every process.
        names = sorted({words_of(name) for name in (term.name, *term.synonyms)}, key=sorted)
        pairs = {
            one ^ other
            for one, other in combinations(names, 2)
            # One word for one other, and something in common: else the terms are just two names.
            if len(one - other) == len(other - one) == 1 and one & other
        }
        terms.update(pairs)
    return frozenset(
        pair
        for pair, count in terms.items()
        # Opposites replace each other, too: 'upper' and 'lower' are no synonyms.
        if count >= EXCHANGED and min(map(len, pair)) > 2 and not opposition(*sorted(pair))
    )
