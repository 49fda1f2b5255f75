"""The data sets that the build can read: another is one more entry."""

from schemas.celeba import CELEBA
from schemas.dataset import DataSet

#: Value of --dataset -> what it is.
DATASETS: dict[str, DataSet] = {each.about.key: each for each in (CELEBA,)}
