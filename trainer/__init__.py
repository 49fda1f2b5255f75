"""The reader: from TFRecords to a trained, evaluated model.

TensorFlow reads these variables once, when it is first imported, so they are set
before any module of this package can import it.
"""

import os

#: Errors only: at start-up TensorFlow tells of every GPU library it cannot find.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
#: TensorFlow turns oneDNN on by itself only on processors with AVX512-VNNI or AMX;
#: its convolutions are the faster ones on plain AVX2 too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
