"""Forward operators y = A x: one factory each, under its command-line name.

    from invsolve import operators
    operator = operators.inpaint((3, 256, 256), keep=0.3)
    y = operator.A(x) + 0.02 * noise

    inpaint    lose pixels          deblur    convolve with a kernel    superres   average blocks of pixels
    colorize   lose the colour      denoise   keep everything           matrix     any matrix, any event

They are deepinv physics (matrix aside), built in one adapter module. Importing this package imports neither
torch nor deepinv; building an operator does.
"""

from invsolve.operators.colorize import colorize
from invsolve.operators.deblur import deblur
from invsolve.operators.denoise import denoise
from invsolve.operators.inpaint import inpaint
from invsolve.operators.interface import Operator, picture, unknown_shape
from invsolve.operators.matrix import matrix
from invsolve.operators.superres import superres

__all__ = [
    "Operator",
    "colorize",
    "deblur",
    "denoise",
    "inpaint",
    "matrix",
    "picture",
    "superres",
    "unknown_shape",
]
