"""What CelebA is: attribute names, splits, file names, official fingerprints.

Source: Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

from schemas.dataset import About, DataSet

IMAGE_FOLDER = "img_align_celeba"
ATTRIBUTES_FILE = "list_attr_celeba.txt"
PARTITION_FILE = "list_eval_partition.txt"
IDENTITY_FILE = "identity_CelebA.txt"

#: The official archive of the aligned images: its name, its bytes, its images.
IMAGE_ARCHIVE = "img_align_celeba.zip"
IMAGE_ARCHIVE_BYTES = 1_443_490_838
IMAGE_COUNT = 202_599

#: (height, width) of the official aligned and cropped images, pixels.
ALIGNED_SIZE = (218, 178)

#: Split names, in the order of the codes 0, 1, 2 of `list_eval_partition.txt`.
SPLITS = ("train", "validation", "test")

#: The official split by place in the list: where train and validation end.
SPLIT_ENDS = (162_770, 182_637)

#: Identity of an image that no identity file names.
UNKNOWN_IDENTITY = -1

#: The 40 attributes, in the order of the official header line.
ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)

#: sha256 of the official annotation files -> their number of rows.
OFFICIAL_FILES = {
    "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0": 202_599,
    "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7": 202_599,
    "c6143857c3e2630ac2da9f782e9c1232e5e59be993a9d44e8a7916c78a6158c0": 202_599,
}

#: A sample of drawn faces in CelebA's layout holds this file, whose `format` says so; a
#: dataset made from it has a source of the name `sample`.
SAMPLE_FILE, SAMPLE_FORMAT, SAMPLE = "sample.json", "celeba-drawn-faces", "sample"

HOME_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"

DATA_TERMS = (
    "CelebA is available for non-commercial research purposes only and may not be "
    "redistributed. Its attribute labels are perceived by annotators, not stated by "
    f"the people shown, and carry known noise. Terms: {HOME_PAGE}"
)

CELEBA = DataSet(
    about=About("celeba", "CelebA", DATA_TERMS, HOME_PAGE),
    attributes=ATTRIBUTES,
    image_folder=IMAGE_FOLDER,
    image_archive=IMAGE_ARCHIVE,
    attributes_file=ATTRIBUTES_FILE,
    partition_file=PARTITION_FILE,
    identity_file=IDENTITY_FILE,
)
