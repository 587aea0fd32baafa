"""The parts that sentences for the shapes world are made of: words, phrases and how they join.

Patterns have {slots}. What stands twice in a list is drawn twice as often. `captions` puts the
parts together.
"""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "purple": ("purple", "purple", "violet"),
    "orange": ("orange",),
    "white": ("white",),
    "black": ("black",),
    "pink": ("pink",),
    "brown": ("brown",),
    "gray": ("gray", "grey"),
}  # fmt: skip

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "circle", "disc", "disk", "ball", "dot"),
    "square": ("square", "square", "square", "box"),
    "triangle": (
        "triangle", "triangle", "triangle", "triangle", "triangle", "three-sided shape",
        "3-sided shape",
    ),
    "star": ("star", "star", "star", "five-pointed star", "five-point star"),
    "ring": ("ring", "ring", "ring", "donut", "doughnut", "hoop"),
    "cross": ("cross", "cross", "cross", "plus", "plus sign", "cross sign"),
    "heart": ("heart", "heart", "heart", "love heart"),
    "moon": ("moon", "moon", "moon", "crescent", "crescent moon", "half moon"),
    "hexagon": (
        "hexagon", "hexagon", "hexagon", "hexagon", "six-sided shape", "six sided shape",
        "six-sided figure", "six-sided polygon",
    ),
    "arrow": ("arrow",),
}  # fmt: skip

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": (
        "small", "small", "little", "tiny", "mini", "minuscule", "wee", "teeny", "miniature",
        "very small", "smallish", "itty-bitty", "teeny tiny", "small-sized", "petite",
        "teensy", "dinky", "minute", "itsy", "itsy-bitsy", "compact", "pocket-sized", "pint-sized",
        "baby-sized", "bite-sized", "small-scale", "microscopic", "tiniest", "xs",
    ),
    "medium": (
        "medium", "medium-sized", "medium sized", "mid-sized", "midsize", "medium-size",
        "average sized", "normal-sized", "regular-sized", "middling", "mid-size", "average",
        "moderate", "moderately sized", "moderate-sized", "middle-sized", "standard", "ordinary",
        "regular", "standard-sized", "modest", "modestly sized", "so-so sized", "intermediate",
        "neither big nor small", "not too big and not too small", "ordinary-sized",
    ),
    "large": (
        "large", "large", "big", "huge", "giant", "enormous", "gigantic", "massive", "oversized",
        "very large", "very big", "extra large", "great big", "large-sized", "jumbo", "vast",
        "colossal", "humongous", "whopping", "whopping great", "mammoth", "ginormous", "hefty",
        "bulky", "monstrous", "outsized", "outsize", "oversize", "whacking great", "mega",
        "gargantuan", "sizeable", "almighty", "supersized", "super-sized", "king-sized", "xl",
        "xxl", "grand", "extra-large", "monumental", "immense", "tremendous", "biggest",
    ),
}  # fmt: skip

SIDE_WORDS: dict[str, tuple[str, ...]] = {
    "left": (
        "on the left", "at the left", "to the left", "left", "on the left side",
        "on the left-hand side", "at the left edge", "in the left half", "on the left hand side",
        "off to the left", "over on the left", "left side", "left of center", "near the left edge",
        "by the left edge", "left aligned", "middle left", "center left", "on the far left",
        "far left", "way over on the left", "towards the left", "close to the left edge",
        "near the left side", "against the left edge", "at the left-hand side", "in the left part",
        "left hand side", "to the left side", "near the left", "toward the left",
        "along the left edge", "at left", "on left", "at the far left", "left-hand side",
        "leftmost", "at the left border", "by the left margin", "hugging the left border",
        "at the left margin", "left-hand border", "on the left hand", "clinging to the left edge",
        "on the left wall", "left edge", "left border", "in the left-hand area", "leftward",
    ),
    "top": (
        "at the top", "on top", "top", "near the top", "at the top edge", "up at the top",
        "in the upper half", "in the top half", "towards the top", "in the upper part",
        "at the upper edge", "top side", "on the top side", "up top", "upper", "high up",
        "top center", "top middle", "top centre", "in the middle at the top",
        "at the top in the middle", "along the top", "up high", "close to the top",
        "at the very top", "near the upper edge", "at top", "toward the top",
        "centered at the top", "by the top edge", "in the upper area",
        "uppermost", "topmost", "in the top portion", "at the top border", "at the upper border",
        "hugging the top edge", "top edge", "at the top margin", "in the topmost part", "top part",
        "at the northern edge", "up in the air",
    ),
    "bottom": (
        "at the bottom", "bottom", "near the bottom", "at the bottom edge", "low down",
        "down at the bottom", "in the lower half", "in the bottom half", "lower",
        "towards the bottom", "in the lower part", "at the lower edge", "bottom side",
        "on the bottom side", "down below", "at the very bottom", "bottom center", "bottom middle",
        "bottom centre", "in the middle at the bottom", "along the bottom",
        "at the bottom in the middle", "down low", "close to the bottom", "at bottom",
        "near the lower edge", "toward the bottom", "centered at the bottom", "by the bottom edge",
        "on the bottom", "in the lower area",
        "lowermost", "bottommost", "in the bottom portion", "at the bottom border", "bottom edge",
        "at the lower border", "hugging the bottom edge", "at the bottom margin", "at the foot",
        "resting at the bottom", "bottom part", "in the lowest part", "at the southern edge",
    ),
    "center": (
        "in the center", "in the middle", "in the centre", "at the center", "center", "middle",
        "centre", "centered", "centred", "right in the middle", "dead center",
        "in the very middle", "in the exact center", "smack in the middle", "mid",
        "placed centrally", "bang in the middle", "exactly in the middle", "at the very center",
        "in the dead centre", "at center", "in the central part", "centrally", "at the middle",
        "slap bang in the middle", "in center", "mid-picture", "in the middle part",
        "dead-centre", "dead-center", "as the centrepiece", "as the centerpiece", "central",
        "at the midpoint", "in the dead middle", "smack dab in the middle",
        "midway", "in the central area", "plumb in the middle",
    ),
}  # fmt: skip
SIDE_WORDS["right"] = tuple(words.replace("left", "right") for words in SIDE_WORDS["left"])
SIDE_WORDS["left"] += ("at the western edge", "on the west side")
SIDE_WORDS["right"] += ("at the eastern edge", "on the east side")

CORNER_FORMS = (
    "in the {corner} corner", "at the {corner}", "on the {corner}", "{corner}", "{corner} corner",
    "in the {corner}", "in the corner at the {corner}", "near the {corner} corner",
    "tucked into the {corner} corner", "over in the {corner}", "up in the {corner} corner",
    "way up in the {corner}", "down in the {corner}", "down in the {corner} corner",
    "into the {corner} corner", "close to the {corner} corner", "in {corner}", "at {corner}",
    "by the {corner} corner", "in the far {corner}", "hiding in the {corner} corner",
    "towards the {corner}", "toward the {corner} corner", "in the corner, {corner}",
    "on the {corner} side", "in the {corner} part", "in the {corner} area",
    "at the {corner} corner", "over in the {corner} corner",
)  # fmt: skip

CORNER_WORDS: dict[str, tuple[str, ...]] = {
    "top left": (
        "top left", "top left", "upper left", "top-left", "upper-left", "left top",
        "upper left hand", "top left-hand", "northwest", "left-hand top", "topleft", "left upper",
        "upper left-hand",
    ),
    "top right": (
        "top right", "top right", "upper right", "top-right", "upper-right", "right top",
        "upper right hand", "top right-hand", "northeast", "right-hand top", "topright",
        "right upper", "upper right-hand",
    ),
    "bottom left": (
        "bottom left", "bottom left", "lower left", "bottom-left", "lower-left", "left bottom",
        "lower left hand", "bottom left-hand", "southwest", "left-hand bottom", "bottomleft",
        "left lower", "lower left-hand",
    ),
    "bottom right": (
        "bottom right", "bottom right", "lower right", "bottom-right", "lower-right",
        "right bottom", "lower right hand", "bottom right-hand", "southeast", "right-hand bottom",
        "bottomright", "right lower", "lower right-hand",
    ),
}  # fmt: skip

AFTER_PLACE = (
    "", "", "", "", "", " of the picture", " of the image", " of the canvas", " of it",
    " of the frame", " of the page", " of the screen",
)  # fmt: skip

BEFORE_PLACE = (
    "", "", "", "", "", "", "placed ", "located ", "sitting ", "put it ", "positioned ",
    "and put it ", "place it ", "floating ", "which sits ", "that is ", "standing ", "it is ",
    "should be ", "somewhere ", "hanging ", "and it's ", "make it ", "drawn ", "set ", "just ",
    "right ", "position: ", "place: ", "pos=", "position=", "where: ", "location: ",
)  # fmt: skip

OPENINGS = (
    "", "", "", "", "", "", "", "", "", "", "", "", "draw ", "draw me ", "paint ", "paint me ",
    "please draw ", "please paint ", "show me ", "show ", "make ", "make me ", "create ",
    "generate ", "render ", "sketch ", "give me ", "i want ", "i need ", "i would like ",
    "i'd like ", "can you draw ", "could you paint ", "can i have ", "could you make me ",
    "let me see ", "there is ", "there's ", "this is ", "here is ", "we see ", "a picture of ",
    "picture of ", "an image of ", "image of ", "a photo of ", "photo of ", "a drawing of ",
    "drawing: ", "a painting of ", "an illustration of ", "an icon of ", "draw a picture of ",
    "paint a picture of ", "show me a picture of ", "create an image of ", "make an image with ",
    "generate a picture of ", "i want a picture of ", "a scene with ", "imagine ", "prompt: ",
    "hello, please draw ", "hi, draw ", "just ", "simply ", "only ", "i'd love ",
    "i'd love to see ", "how about ", "would you draw ", "gimme ", "do ", "produce ", "design ",
    "put ", "add ", "could you do ", "what about ", "let's have ", "pls draw ", "please make ",
    "please show ", "please generate ", "please give me ", "can you make ", "can you show me ",
    "could you show me ", "could i get ", "may i have ", "i'm after ", "looking for ", "draw us ",
    "want ", "need ", "display ", "depict ", "a graphic of ", "clip art of ", "a poster with ",
    "we need ", "the picture should show ", "picture: ", "image: ", "ok so ", "a sketch of ",
    "would love ", "a logo with ", "an emblem: ", "try ", "the image shows ", "plonk down ",
    "whip up ", "knock up ", "slap down ", "stick in ", "let there be ", "throw in ", "place ",
    "i'd kill for ", "is it possible to have ", "would you be so good as to sketch ", "mock up ",
    "alright so ", "uhh ", "hmm, ", "surprise me with ", "my kid wants ", "my daughter wants ",
    "for my homework: ", "for a card: ", "the boss wants ", "let me have ",
)  # fmt: skip

ENDINGS = (
    "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", " please", ", please",
    " thanks", ", thank you", " for me", ", nothing else", ", flat design", ", simple",
    ", minimal", ", high quality", " now", ", vector art", ", clean edges", ", solid", " pls",
    " plz", " if you can", ", that is all", ", that's it", " on its own", " thank you", ", cheers",
    " would be nice", ", no text", " alone", ", ultra sharp", ", 8k", ", masterpiece",
    ", minimalist", " --ar 1:1", " --v 6", ", vector", ", flat", " asap", " thx", " ty", ", ok",
    ", nothing fancy", " and that's all", ", flat illustration", ", icon style",
)  # fmt: skip

ARTICLES = (
    "a ", "a ", "a ", "a ", "one ", "the ", "", "", "a single ", "some ", "my ",
)  # fmt: skip

NOUNS = (
    "{size} {colour} {shape}", "{size} {colour} {shape}", "{size} {colour} {shape}",
    "{size}, {colour} {shape}", "{colour} {size} {shape}", "{colour}, {size} {shape}",
    "{size} {colour} coloured {shape}", "{size} {shape} in {colour}", "{size} {shape}, {colour}",
    "{colour} {shape}, {size}", "{colour} {shape} that is {size}",
    "{shape} that is {size} and {colour}", "{size} {shape} that is {colour}",
    "{shape}, {size} and {colour}", "{size} {shape} painted {colour}",
    "{size} {colour}-colored {shape}", "{colour} {shape} of {size} size",
    "{shape} {colour} {size}", "{size} {shape} filled with {colour}",
    "{size} and {colour} {shape}", "{very} {size} {colour} {shape}",
    "{colour} {shape}, make it {size}", "{colour} {shape}, it should be {size}",
    "{colour} {shape} and make it {size}", "{shape}: {size}, {colour}",
    "{colour} {shape} but {size}", "{shape} {size} {colour}", "{size} {shape} coloured {colour}",
    "{size} {shape} all in {colour}", "{size} {shape}, make it {colour}",
    "{shape} in {colour}, {size}", "{size} {shape} which is {colour}",
    "{size} {shape} in the colour {colour}", "{colour} {shape}, {very} {size}",
    "{size} {size} {colour} {shape}", "{shape}, {colour}, {size}",
    "shape: {shape}, colour: {colour}, size: {size}", "shape={shape} color={colour} size={size}",
    "size: {size}; color: {colour}; shape: {shape}", "{shape}. it is {colour} and {size}",
    "{shape}. make it {size} and {colour}", "{shape}; colour {colour}, size {size}",
    "{colour} {shape}, {size} in size", "{colour} {shape} on the {size} side",
    "{shape} ({colour}, {size})",
    "{size} {shape} ({colour})", "{colour} {shape}, {size} size",
    "{colour} {shape} of {size} dimensions",
    "{size} {shape} of {colour} colour", "{shape}, {colour}, and {size} please",
    "{colour} {shape} and {size} at that", "{colour} {shape}, size {size}",
)  # fmt: skip

PLAIN_NOUNS = (
    "{colour} {shape}", "{colour} {shape}", "{colour} {shape}", "{colour} {shape}",
    "{colour} coloured {shape}", "{colour} colored {shape}", "{shape} in {colour}",
    "{shape}, {colour}", "{shape} that is {colour}", "{shape} {colour}",
    "{shape} painted {colour}", "{shape}: {colour}", "{colour}-colored {shape}",
    "{shape} which is {colour}", "{shape} filled with {colour}", "solid {colour} {shape}",
    "{colour} filled {shape}", "nice {colour} {shape}", "{shape} of {colour}",
    "bright {colour} {shape}", "simple {colour} {shape}", "{colour} {shape} shape",
    "{shape}, colour {colour}", "{shape} in the colour {colour}", "{shape} in the color {colour}",
    "{shape} coloured {colour}", "{shape} colored in {colour}", "{shape} all in {colour}",
    "{shape}, make it {colour}", "pure {colour} {shape}", "plain {colour} {shape}",
    "{shape}, it should be {colour}", "{shape}; {colour}", "{shape}. {colour}",
    "{shape} done in {colour}", "{shape} with {colour} fill", "{colour}, {shape}",
    "{shape} as {colour} as can be", "perfect {colour} {shape}", "{colour} colour {shape}",
    "{colour} {shape} symbol", "{colour} {shape} icon", "{shape} drawn in {colour}",
    "shape: {shape}, colour: {colour}", "color={colour} shape={shape}", "{shape}. make it {colour}",
    "{shape}. it is {colour}", "{colour}: {shape}", "{colour}-hued {shape}",
    "{shape}, {colour}-hued",
    "{shape} ({colour})", "{shape} of {colour} colour", "{shape} {colour} in colour",
    "{colour} one: {shape}",
    "{shape}, let it be {colour}", "{shape} and it must be {colour}", "{colour} kind of {shape}",
    "{shape} where the colour is {colour}", "{shape} colour: {colour}", "{shape} shape in {colour}",
)  # fmt: skip

NO_COLOUR_NOUNS = (
    "{size} {shape}", "{shape} that is {size}", "{shape}, {size}", "nice {size} {shape}",
)  # fmt: skip

NO_SHAPE_NOUNS = (
    "{size} {colour} shape", "{size} {colour} thing", "something {colour}",
    "{size} {colour} object", "anything {colour}", "{size} {colour} figure",
    "something {size} and {colour}",
)  # fmt: skip

NOTHING_NOUNS = (
    "{size} shape", "something {size}", "{size} thing", "{size} figure", "anything",
)  # fmt: skip

VERY = (
    "very", "really", "quite", "super", "rather", "fairly", "pretty", "extra", "so",
)  # fmt: skip

BACKGROUNDS = (
    "on a {background} background", "on a {background} background", "on {background}",
    "on {background}", "on {a} {background} background", "against a {background} background",
    "against {background}", "with a {background} background", "{background} background",
    "in front of a {background} background", "in front of {background}", "over {background}",
    "over a {background} background", "on top of a {background} background",
    "background {background}", "the background is {background}", "background: {background}",
    "and a {background} background", "make the background {background}",
    "on a {background} canvas", "on {background} paper", "on a {background} backdrop",
    "against a {background} backdrop", "{background} backdrop",
    "on a plain {background} background", "on a solid {background} background",
    "on a {background} page", "on a {background} field", "on a {background} wall",
    "with {background} behind it", "with {background} background",
    "where the background is {background}", "{background} bg", "on a {background} surface",
    "with {background} as the background", "on a background of {background}",
    "the background being {background}", "background={background}", "bg={background}",
    "bg {background}", "bg: {background}", "with the rest in {background}",
    "make the rest {background}", "make everything else {background}",
    "on a {background} ground", "{background} ground", "on {background} ground",
    "ground colour {background}", "{background} setting", "in a {background} setting",
    "{background} wallpaper", "on {background} wallpaper", "{background} surroundings",
    "with {background} surroundings", "{background} base", "{background} as the base colour",
    "base colour {background}", "page colour {background}", "page color: {background}",
    "{background} page", "{background} canvas", "{background} fill", "{background} wall behind",
    "{background} behind", "behind: {background}", "behind it {background}",
    "what is behind is {background}", "with {background} filling the rest", "{background} field",
    "colour the back {background}", "the setting is {background}", "the canvas is {background}",
    "the page is {background}", "{background} all over", "everything behind is {background}",
    "keep it {background} behind", "the surroundings {background}", "canvas {background}",
    "fill the background with {background}", "paint the background {background}",
    "the ground is {background}", "wallpaper {background}", "set in {background}",
    "in front of something {background}",
    "the background should be {background}", "everything else {background}",
    "{background} behind it", "on a {background} sheet of paper", "surrounded by {background}",
    "in a {background} picture", "and the background {background}",
    "the background in {background}", "background should be {background}",
    "background colour {background}", "background color: {background}",
    "with the background in {background}", "set against {background}",
    "on an all {background} background", "on pure {background}", "on plain {background}",
    "on a completely {background} background", "with a {background} backdrop",
    "the rest {background}", "the rest is {background}", "with {background} all around",
    "{background} coloured background", "on a {background} coloured background",
    "upon {background}", "with {background} everywhere else", "{background} around it",
    "onto {background}", "on a {background} screen", "on a {background} board",
    "on a {background} card", "on solid {background}", "and make the background {background}",
    "where everything else is {background}", "in front of a {background} wall",
    "the backdrop is {background}", "on top of {background}",
    "against a plain {background} background", "with {background} for a background",
    "background in {background}",
)  # fmt: skip

LEADING_BACKGROUNDS = (
    "a {background} background with ", "{background} background, ",
    "on a {background} background ", "on {background}, ", "on a {background} background, ",
    "against a {background} background, ", "a {background} picture with ", "on {background}: ",
    "{background} background and ", "a {background} canvas with ", "in front of {background}, ",
    "{background} background: ", "with a {background} background, ",
    "a plain {background} background showing ", "make the background {background} and draw ",
    "background {background}, ", "the background is {background}, ",
    "on a plain {background} background put ", "take a {background} background and add ",
    "against {background}, ", "{background} backdrop, ", "have a {background} background with ",
    "on pure {background} ", "{background} canvas, ", "over {background}, ",
    "{background} ground, ", "{background} wallpaper, ", "{background} setting: ",
    "base colour {background}, then ", "page colour: {background}, ", "{background} page. ",
    "the wallpaper is {background} and there is ", "setting {background}, ",
    "{background} all over, then ", "plain {background}, then ",
    "make the page {background}. then ",
    "fill it with {background} and add ", "{background} filled image, ", "canvas in {background}, ",
    "{background} surroundings and ", "behind is {background}, in front ",
    "{background} backdrop + ",
    "the canvas is {background}. on it ", "the page is {background}; on it ",
    "{background} surface with ", "paint everything {background}, then ", "{background} with ",
)  # fmt: skip

SEPARATORS = (
    " ", " ", " ", " ", ", ", ", ", ". ", " and ", "; ", " - ",
)  # fmt: skip

LEADING_SEPARATORS = (
    " ", ", ", ", ", ": ", " there is ", " is ", " put ",
)  # fmt: skip

ROW_FORMS = (
    "{left} left of {right}", "{left} to the left of {right}", "{left} on the left of {right}",
    "{right} right of {left}", "{right} to the right of {left}", "{right} on the right of {left}",
    "{left} on the left and {right} on the right", "{right} on the right and {left} on the left",
    "{left} at left, {right} at right", "on the left {left}, on the right {right}",
    "{left} with {right} to its right", "{right} with {left} to its left",
    "to the left of {right} is {left}", "to the right of {left} is {right}",
    "left: {left}, right: {right}", "{left} on the left side of {right}",
    "{right} on the right side of {left}", "{left} left, {right} right",
    "on the right {right}, on the left {left}", "{left} and to its right {right}",
    "{left} is left of {right}", "{right} is right of {left}", "{left}, then {right} to the right",
    "{left} followed by {right} on its right", "left of {right} there is {left}",
    "right of {left} there is {right}", "{left} is to the left of {right}",
    "{right} is to the right of {left}", "{right} and on its left {left}",
    "{left} sits left of {right}", "{left} immediately left of {right}",
    "{right} just right of {left}", "{left} on the left, {right} on the right",
    "{right} on the right, {left} on the left",
    "on the left is {left} and on the right is {right}",
    "on the right is {right} and on the left is {left}", "{left} stands to the left of {right}",
    "{right} stands to the right of {left}", "{left} with {right} on its right",
    "{right} with {left} on its left", "{left} at the left of {right}",
    "{right} at the right of {left}", "{left} placed left of {right}",
    "{right} placed right of {left}", "{left} directly to the left of {right}",
    "{right} directly to the right of {left}", "{left}, and right of it {right}",
    "{right}, and left of it {left}", "{left} on the left next to {right}",
    "{right} on the right next to {left}", "{left} to the left and {right} to the right",
    "{right} to the right and {left} to the left", "{left} on left, {right} on right",
    "{right} on right, {left} on left", "in the left half {left}, in the right half {right}",
    "{left} is on the left, {right} is on the right",
    "{right} is on the right, {left} is on the left", "{left} leftmost, {right} rightmost",
    "left {left} right {right}", "to the right of {left}, {right}",
    "to the left of {right}, {left}", "{left} on the left side and {right} on the right side",
    "{right} on the right side and {left} on the left side", "{left} just to the left of {right}",
    "{right} just to the right of {left}", "{left}. to its right, {right}",
    "{right}. to its left, {left}",
    "left: {left}. right: {right}", "right: {right}; left: {left}",
    "right: {right}, left: {left}", "left is {left} and right is {right}",
    "on the right there is {right}, on the left there is {left}",
    "on the left there is {left}, on the right there is {right}",
    "{left} on the left-hand side, {right} on the right-hand side",
    "{right} on the right-hand side and {left} on the left-hand side",
    "left side {left}, right side {right}", "left half: {left}, right half: {right}",
    "from left to right: {left}, {right}", "left to right: {left}, {right}",
    "left to right, {left} then {right}", "first {left}, then to its right {right}",
    "{left}. to the right of it {right}", "{right}. to the left of it {left}",
    "{right}. to the left of it draw {left}", "{left}. to the right of it draw {right}",
    "{right} with {left} beside it on the left", "{left} with {right} beside it on the right",
    "next to {right}, on the left of it, {left}", "next to {left}, on the right of it, {right}",
    "{left} on the left hand, {right} on the right hand", "{left} leftmost and then {right}",
    "beside {left} on the right {right}", "beside {right} on the left {left}",
    "{left} (left), {right} (right)", "{right} (right), {left} (left)",
)  # fmt: skip

COLUMN_FORMS = (
    "{upper} above {lower}", "{upper} above {lower}", "{lower} below {upper}",
    "{lower} under {upper}", "{upper} over {lower}", "{lower} underneath {upper}",
    "{lower} beneath {upper}", "{upper} at the top and {lower} at the bottom",
    "{lower} at the bottom and {upper} at the top", "{upper} on top and {lower} below",
    "{upper} with {lower} below it", "{lower} with {upper} above it", "above {lower} is {upper}",
    "below {upper} is {lower}", "top: {upper}, bottom: {lower}", "{upper} is above {lower}",
    "{lower} is below {upper}", "{upper} directly above {lower}", "{lower} directly below {upper}",
    "{upper} higher than {lower}", "{lower} lower than {upper}", "{upper} and under it {lower}",
    "{lower} and above it {upper}", "under {upper} there is {lower}", "{upper} on top of {lower}",
    "over {lower} there is {upper}", "{lower} is under {upper}", "{upper} hovering above {lower}",
    "{lower} placed below {upper}", "{upper} top, {lower} bottom", "{upper} sits above {lower}",
    "{lower} sits below {upper}", "{upper} floating above {lower}",
    "{upper} over the top of {lower}", "{lower} sitting below {upper}",
    "{lower} just under {upper}", "{upper} just above {lower}",
    "{upper} on the top, {lower} on the bottom", "{lower} on the bottom, {upper} on the top",
    "{upper} up top and {lower} down below", "{upper}, with {lower} underneath",
    "{lower}, with {upper} overhead", "{upper}, below it {lower}", "{lower}, above it {upper}",
    "at the top {upper}, at the bottom {lower}", "at the bottom {lower}, at the top {upper}",
    "{upper} is over {lower}", "{upper} stacked above {lower}", "{lower} is beneath {upper}",
    "{lower} is underneath {upper}", "{lower} down below {upper}", "{upper} up above {lower}",
    "beneath {upper} is {lower}", "underneath {upper}, {lower}", "above {lower}, {upper}",
    "below {upper}, {lower}", "{upper} at top, {lower} at bottom",
    "{lower} at bottom, {upper} at top", "{upper} in the upper half and {lower} in the lower half",
    "{upper} higher up and {lower} lower down", "{lower} right under {upper}",
    "{upper} right above {lower}", "{upper}, {lower} below", "{lower}, {upper} above",
    "{upper} hanging over {lower}", "{upper}. beneath it, {lower}", "{lower}. above it, {upper}",
    "above: {upper}, below: {lower}", "above {upper}, below {lower}",
    "above is {upper} and below is {lower}", "below is {lower} and above is {upper}",
    "above there is {upper}, below there is {lower}", "up top {upper}, down below {lower}",
    "up top is {upper}, down below is {lower}", "top: {upper}. bottom: {lower}",
    "above: {upper}. below: {lower}", "below: {lower}. above: {upper}",
    "bottom: {lower}; top: {upper}", "at the bottom is {lower} and at the top is {upper}",
    "{upper} above, {lower} below", "{lower} below, {upper} above",
    "{upper} up there and {lower} down there",
    "{upper} atop {lower}", "{upper} perched atop {lower}", "{lower} with {upper} atop it",
    "{lower}. over it, {upper}", "{lower}, and over it {upper}", "{lower} with {upper} over it",
    "{lower} with {upper} perched on top", "from top to bottom: {upper}, {lower}",
    "top to bottom: {upper}, {lower}", "top to bottom, {upper} then {lower}",
    "{upper} uppermost, {lower} lowermost", "first {upper} on top, then {lower} below it",
    "{upper} upon {lower}", "{upper} resting on {lower}", "{upper}, and underneath it {lower}",
    "{lower}. on top of it {upper}", "{upper}. under it {lower}", "{upper}, and below that {lower}",
)  # fmt: skip

PAIR_FORMS = (
    "{left} and {right}", "{left} and {right}", "{left} next to {right}", "{left} beside {right}",
    "{left} with {right}", "{left}, {right}", "{left} plus {right}", "{left} & {right}",
    "{left} together with {right}", "two shapes: {left} and {right}", "{left} by {right}",
    "both {left} and {right}", "{left} and also {right}", "{left} alongside {right}",
    "{left} as well as {right}", "{left} + {right}", "{left} along with {right}",
    "{left} accompanied by {right}", "one {left}, one {right}", "{left} near {right}",
    "{left} close to {right}", "a pair: {left} and {right}", "{left}, plus {right}",
    "{left} side by side with {right}",
)  # fmt: skip

COUNTS: dict[int, tuple[str, ...]] = {
    2: (
        "two", "two", "2", "a pair of", "a couple of", "exactly two", "a set of two", "both",
        "twin", "a duo of", "2x", "double", "a twosome of", "two identical", "two matching",
        "two equal", "just two",
    ),
    3: (
        "three", "three", "3", "a trio of", "a row of three", "exactly three", "a set of three",
        "3x", "three identical", "three matching", "three equal", "a line of three", "just three",
        "a group of three", "triple", "a triplet of", "three of", "not one, not two, but three",
    ),
}  # fmt: skip

COUNT_ENDS = (
    "", "", "", "", " side by side", " next to each other", " in a row", " in a line",
    " beside each other", " together", " lined up", " next to one another", " all in a row",
    " horizontally", " aligned",
)  # fmt: skip

# Words that say nothing about a scene; they teach the encoders what to pass over.
FILLER = (
    "the", "a", "an", "it", "of", "for", "with", "to", "in", "is", "are", "was", "be", "and", "or",
    "but", "not", "you", "me", "my", "we", "he", "she", "they", "him", "her", "this", "that",
    "these", "those", "here", "there", "what", "when", "why", "how", "who", "which", "very",
    "really", "so", "too", "also", "just", "like", "as", "than", "some", "any", "all", "every",
    "each", "other", "another", "same", "new", "old", "good", "great", "nice", "cool", "pretty",
    "lovely", "beautiful", "cute", "fun", "funny", "simple", "plain", "clean", "sharp", "crisp",
    "flat", "smooth", "shiny", "glossy", "bright", "dark", "soft", "clear", "solid", "bold",
    "modern", "classic", "elegant", "minimalist", "abstract", "realistic", "detailed", "digital",
    "vector", "graphic", "geometric", "logo", "icon", "symbol", "sign", "emoji", "sticker",
    "poster", "card", "badge", "banner", "button", "art", "artwork", "style", "design", "shape",
    "figure", "object", "thing", "something", "anything", "picture", "image", "photo",
    "photograph", "drawing", "painting", "sketch", "illustration", "render", "scene", "view",
    "screen", "page", "paper", "canvas", "sheet", "board", "wall", "floor", "sky", "sea", "night",
    "day", "light", "shadow", "please", "kindly", "thanks", "thank", "hello", "hi", "hey", "okay",
    "ok", "yes", "no", "maybe", "sure", "welcome", "sorry", "want", "need", "wish", "love", "hate",
    "hope", "think", "know", "see", "look", "watch", "show", "tell", "say", "ask", "give", "take",
    "make", "made", "create", "build", "do", "does", "did", "done", "draw", "drawn", "paint",
    "painted", "sketch", "generate", "render", "put", "place", "placed", "add", "set", "let",
    "get", "got", "have", "has", "had", "can", "could", "would", "should", "will", "shall", "may",
    "might", "must", "try", "use", "using", "help", "work", "play", "run", "go", "come", "sit",
    "stand", "lie", "stay", "keep", "turn", "move", "fill", "filled", "colour", "color",
    "coloured", "colored", "size", "sized", "shaped", "background", "picture", "cat", "dog",
    "house", "tree", "car", "boat", "bird", "fish", "horse", "man", "woman", "boy", "girl",
    "child", "baby", "king", "queen", "face", "hand", "eye", "flower", "grass", "mountain",
    "river", "lake", "beach", "sun", "cloud", "rain", "snow", "fire", "water", "earth", "world",
    "city", "street", "road", "bridge", "tower", "castle", "garden", "forest", "desert", "island",
    "food", "apple", "banana", "bread", "cake", "coffee", "tea", "milk", "pizza", "table", "chair",
    "bed", "door", "window", "lamp", "book", "pen", "phone", "computer", "robot", "machine",
    "music", "song", "dance", "game", "toy", "gift", "party", "summer", "winter", "spring",
    "autumn", "morning", "evening", "time", "year", "month", "week", "today", "now", "later",
    "soon", "always", "never", "often", "sometimes", "once", "again", "first", "last", "next",
    "best", "worst", "more", "most", "less", "least", "much", "many", "few", "lot", "bit", "piece",
    "part", "whole", "five", "six", "seven", "ten", "hundred", "number", "name", "word",
    "sentence", "text", "letter", "story", "idea", "test", "example", "question", "answer",
    "problem", "reason", "way", "kind", "type", "sort", "thing", "stuff", "quality", "resolution",
    "hd", "4k", "ultra", "high", "low", "perfect", "exactly", "only", "nothing", "else",
    "everything", "anyone", "someone", "nobody", "friend", "daughter", "son", "mother", "father",
    "brother", "sister", "kid", "kids", "school", "class", "teacher", "children", "presentation",
    "slide", "website", "app", "wallpaper", "print", "tshirt", "shirt", "mug", "product",
    "company", "brand",
)  # fmt: skip
