"""Before any test: TensorFlow's switches are those of the programs."""

import trainer  # noqa: F401 - sets what TensorFlow reads when it is first imported
