"""The words that sentences for the shapes world are made of, and the phrases for places and counts.

What stands twice in a list is drawn twice as often. Patterns have {slots}.
"""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": (*("red",) * 20, "reddish", "scarlet", "crimson", "bright red"),
    "green": (*("green",) * 20, "greenish", "emerald", "leaf green"),
    "blue": (*("blue",) * 20, "bluish", "sky blue", "royal blue"),
    "yellow": (*("yellow",) * 20, "yellowish", "bright yellow", "lemon yellow"),
    "purple": (*("purple",) * 14, *("violet",) * 6, "purplish", "deep purple"),
    "orange": (*("orange",) * 20, "orangey", "bright orange"),
    "white": (*("white",) * 20, "snow-white", "pure white"),
    "black": (*("black",) * 20, "jet-black", "pitch black", "jet black"),
    "pink": (*("pink",) * 20, "pinkish", "rose-pink", "hot pink"),
    "brown": (*("brown",) * 20, "brownish", "chocolate brown"),
    "gray": (*("gray",) * 10, *("grey",) * 10, "greyish", "grayish"),
}

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": (
        "circle", "circle", "circle", "circle", "circle", "circle", "disc", "disc", "disk", "disk",
        "ball", "ball", "dot", "dot", "round shape", "round thing", "filled circle",
    ),
    "square": ("square", "square", "square", "square", "square", "square", "box", "box", "block"),
    "triangle": (
        "triangle", "triangle", "triangle", "triangle", "triangle", "three-sided shape",
        "3-sided shape", "triangular shape",
    ),
    "star": (*("star",) * 9, "five-pointed star", "five-point star", "5-pointed star"),
    "ring": (
        "ring", "ring", "ring", "ring", "ring", "ring", "donut", "donut", "doughnut", "doughnut",
        "hoop", "hoop", "annulus", "hollow circle", "round band",
    ),
    "cross": (
        "cross", "cross", "cross", "cross", "cross", "cross", "plus", "plus", "plus sign",
        "plus sign", "cross sign", "plus symbol", "+ sign", "+",
    ),
    "heart": ("heart", "heart", "heart", "love heart"),
    "moon": ("moon", "moon", "moon", "crescent", "crescent moon", "half moon"),
    "hexagon": (
        "hexagon", "hexagon", "hexagon", "hexagon", "six-sided shape", "six sided shape",
        "six-sided figure", "six-sided polygon",
    ),
    "arrow": (*("arrow",) * 12, "pointer", "pointer", "arrow sign", "arrow symbol"),
}  # fmt: skip

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": (
        "small", "small", "little", "tiny", "mini", "minuscule", "wee", "teeny", "miniature",
        "very small", "smallish", "itty-bitty", "teeny tiny", "small-sized", "petite",
        "teensy", "dinky", "minute", "itsy", "itsy-bitsy", "compact", "pocket-sized", "pint-sized",
        "baby-sized", "bite-sized", "small-scale", "microscopic", "tiniest", "xs", "lil", "sml",
        "kinda small", "really small", "not very big", "not big",
    ),
    "medium": (
        "medium", "medium-sized", "medium sized", "mid-sized", "midsize", "medium-size",
        "average sized", "normal-sized", "regular-sized", "middling", "mid-size", "average",
        "moderate", "moderately sized", "moderate-sized", "middle-sized", "standard", "ordinary",
        "regular", "standard-sized", "modest", "modestly sized", "so-so sized", "intermediate",
        "neither big nor small", "not too big and not too small", "ordinary-sized", "middle size",
        "usual-sized", "middle sized", "in-between", "fair-sized", "medium size",
    ),
    "large": (
        "large", "large", "big", "huge", "giant", "enormous", "gigantic", "massive", "oversized",
        "very large", "very big", "extra large", "great big", "large-sized", "jumbo", "vast",
        "colossal", "humongous", "whopping", "whopping great", "mammoth", "ginormous", "hefty",
        "bulky", "monstrous", "outsized", "outsize", "oversize", "whacking great", "mega",
        "gargantuan", "sizeable", "almighty", "supersized", "super-sized", "king-sized", "xl",
        "xxl", "grand", "extra-large", "monumental", "immense", "tremendous", "biggest",
        "really big", "really large", "quite big", "lg", "sizable",
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

_LEVELS = {
    "top": ("up", "high up", "way up", "up high"),
    "bottom": ("down", "low down", "way down", "down low"),
}
_UP_AND_SIDE_FORMS = (
    "{up} in the {side} corner", "{up} {side}", "in {up} {side}", "{up} on the {side}",
    "{up} at the {side}", "at the {level} on the {side}", "{level}, {side}", "{up} and {side}",
    "at the {level}, on the {side}", "in the {level} corner on the {side}", "{level} and {side}",
    "in the {side} corner at the {level}", "at the {level} {side} hand side",
    "{level} {side} hand corner", "in the {level} {side}-hand corner", "at the {side}, {up}",
    "in the {side} corner, {up}", "on the {side}, {up}",
)  # fmt: skip
CORNER_PHRASES: dict[str, tuple[str, ...]] = {
    corner: tuple(
        dict.fromkeys(
            form.format(up=up, level=corner.split()[0], side=corner.split()[1])
            for form in _UP_AND_SIDE_FORMS
            for up in _LEVELS[corner.split()[0]]
        )
    )
    for corner in CORNER_WORDS
}

VERY = (
    "very", "really", "quite", "super", "rather", "fairly", "pretty", "extra", "so",
)  # fmt: skip

COUNTS: dict[int, tuple[str, ...]] = {
    2: (
        "two", "two", "2", "a pair of", "a couple of", "exactly two", "a set of two", "both",
        "twin", "a duo of", "2x", "double", "dubble", "a twosome of", "two identical",
        "two matching",
        "two equal", "just two", "2 pieces of", "two times", "a pair of two", "altogether two",
    ),
    3: (
        "three", "three", "3", "a trio of", "a row of three", "exactly three", "a set of three",
        "3x", "three identical", "three matching", "three equal", "a line of three", "just three",
        "a group of three", "triple", "a triplet of", "three of", "not one, not two, but three",
        "3 pieces of", "three times", "a bunch of three", "altogether three",
    ),
}  # fmt: skip

COUNT_ENDS = (
    "", "", "", "", " side by side", " next to each other", " in a row", " in a line",
    " beside each other", " together", " lined up", " next to one another", " all in a row",
    " horizontally", " aligned",
)  # fmt: skip
AFTER_COUNTS: dict[int, tuple[str, ...]] = {
    2: (", two of them", ", 2 of them", " x2", " x 2", " (two)", ", a pair", " times two"),
    3: (", three of them", ", 3 of them", " x3", " x 3", " (three)", ", a trio", " times three"),
}  # fmt: skip

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
    "company", "brand", "about", "after", "ago", "already", "although", "among", "amount", "area",
    "arm", "arrive", "asleep", "aunt", "awake", "away", "bag", "bake", "band", "bank", "bar",
    "basket", "bath", "bear", "beat", "because", "become", "bee", "before", "began", "begin",
    "behave", "bell", "belong", "bike", "birthday", "birth", "bite", "blank", "blow", "body",
    "boil", "bone", "born", "boss", "bottle", "bowl", "brain", "brave", "break", "breakfast",
    "bring", "broken", "brush", "bug", "bus", "busy", "butter", "buy", "cafe", "call", "calm",
    "camera", "camp", "candle", "cap", "care", "careful", "carry", "cash", "catch", "cause",
    "ceiling", "cent", "century", "chance", "change", "cheap", "check", "cheese", "chef",
    "chicken", "choice", "choose", "church", "cinema", "clever", "click", "climb", "clock",
    "close", "cloth", "club", "coat", "cold", "collect", "comfort", "common", "concert", "cook",
    "copy", "corn", "cost", "cotton", "count", "country", "course", "cousin", "cow", "crazy",
    "cream", "creative", "cry", "cup", "curtain", "custom", "cut", "dad", "daily", "dear",
    "decide", "deep", "deliver", "depend", "detail", "diary", "die", "dinner", "dirty", "doctor",
    "dollar", "dream", "dress", "drink", "drive", "drop", "dry", "duck", "dust", "early", "easy",
    "eat", "edit", "either", "electric", "elephant", "email", "empty", "engine", "enjoy", "enough",
    "enter", "event", "ever", "exam", "exciting", "expect", "explain", "extra", "fall", "family",
    "famous", "fan", "fancy", "farm", "fast", "favour", "favourite", "feel", "festival", "fight",
    "film", "final", "find", "fine", "finger", "finish", "fit", "fix", "flag", "flight", "flyer",
    "follow", "foot", "football", "forget", "fork", "form", "found", "fox", "free", "fresh",
    "friday", "frog", "fruit", "full", "future", "garage", "gas", "general", "gentle", "ghost",
    "glad", "glass", "goal", "goat", "grade", "grandma", "grandpa", "grateful", "grow", "guess",
    "guest", "guitar", "gym", "hair", "happen", "happy", "hard", "hat", "head", "health", "hear",
    "heat", "heavy", "hen", "here's", "hide", "hill", "history", "hobby", "hold", "holiday",
    "honest", "honey", "hospital", "hot", "hotel", "hour", "hungry", "hurry", "husband", "ice",
    "important", "include", "instead", "interest", "internet", "invite", "iron", "jacket", "jam",
    "january", "job", "join", "joke", "juice", "june", "junk", "key", "kick", "kitchen", "knee",
    "knife", "label", "lady", "lamb", "land", "language", "late", "laugh", "law", "lawyer", "lazy",
    "lead", "learn", "leather", "leave", "leg", "lesson", "level", "library", "life", "lion",
    "lips", "list", "listen", "local", "lost", "loud", "luck", "lunch", "magazine", "magic",
    "mail", "manager", "map", "march", "market", "marry", "mask", "master", "match", "math",
    "meal", "mean", "meat", "meet", "member", "memory", "menu", "message", "metal", "mind",
    "mirror", "miss", "mix", "model", "moment", "monday", "money", "monkey", "mood", "mouse",
    "mouth", "movie", "museum", "mum", "nature", "neck", "neighbour", "nephew", "nest",
    "newspaper", "niece", "noise", "nose", "note", "notebook", "nurse", "ocean", "offer", "office",
    "oil", "onion", "online", "open", "option", "order", "our", "out", "outdoor", "own", "owner",
    "pack", "paid", "pain", "pan", "pants", "parent", "park", "partner", "pass", "past", "path",
    "pay", "peace", "pencil", "people", "pepper", "perhaps", "person", "pet", "piano", "picnic",
    "pig", "pillow", "pilot", "plan", "plane", "plant", "plate", "player", "pocket", "poem",
    "police", "polite", "pool", "poor", "post", "potato", "power", "practice", "present", "price",
    "prince", "princess", "prize", "profile", "project", "promise", "proof", "proud", "public",
    "pull", "purpose", "push", "puzzle", "quick", "quiet", "rabbit", "race", "radio", "rat", "raw",
    "reach", "read", "ready", "real", "recipe", "record", "relax", "remember", "remind", "rent",
    "repeat", "report", "request", "rice", "rich", "ride", "rise", "rock", "roof", "room", "rule",
    "rush", "sad", "safe", "salad", "sale", "salt", "sandwich", "saturday", "save", "saying",
    "science", "seat", "secret", "seem", "sell", "send", "share", "sheep", "shelf", "ship", "shoe",
    "shop", "shoulder", "shout", "shower", "sick", "sing", "sink", "sir", "skin", "skirt", "sleep",
    "slow", "smart", "smell", "smile", "smoke", "snake", "soap", "sock", "sofa", "soldier",
    "somehow", "soup", "space", "speak", "special", "speed", "spell", "spend", "spoon", "sport",
    "stage", "stairs", "stamp", "start", "station", "steak", "step", "stone", "stop", "store",
    "storm", "strange", "strong", "student", "study", "sugar", "suit", "sunday", "sunny",
    "support", "surprise", "sweet", "swim", "system", "tail", "task", "taste", "taxi", "team",
    "teach", "tennis", "terrible", "theme", "theatre", "thirsty", "thought", "thousand", "throw",
    "thursday", "ticket", "tidy", "tie", "tiger", "tired", "title", "toast", "tomato", "tomorrow",
    "tonight", "tool", "tooth", "touch", "tour", "town", "trade", "train", "travel", "treat",
    "trial", "trip", "trouble", "truck", "true", "trust", "truth", "tuesday", "turtle", "twenty",
    "ugly", "umbrella", "uncle", "understand", "uniform", "unit", "until", "upset", "user",
    "vacation", "valley", "van", "vegetable", "video", "village", "violin", "visit", "voice",
    "vote", "wait", "wake", "walk", "wallet", "war", "warm", "wash", "waste", "wave", "wear",
    "weather", "wedding", "wednesday", "weekend", "well", "wet", "whatever", "wheel", "while",
    "whisper", "whose", "wife", "wild", "win", "wind", "wine", "wing", "wise", "without", "wolf",
    "wonder", "wonderful", "wood", "wool", "worry", "worth", "wow", "write", "wrong", "yard",
    "yay", "yeah", "yesterday", "yet", "yoga", "young", "yours", "zebra", "zero", "zoo",
    "artstation", "trending", "bauhaus", "swiss", "retro", "vintage", "boho", "pastel", "cartoon",
    "anime", "pixel", "watercolour", "studio", "lighting", "unreal", "midjourney", "dalle",
    "prompt", "seed", "ratio", "svg", "png", "favicon", "thumbnail", "avatar", "pictogram",
    "worksheet", "flashcard", "classroom", "kindergarten", "newsletter", "brochure", "leaflet",
    "invitation", "homework", "valentine", "christmas", "easter", "halloween", "anniversary",
    "bakery", "pharmacy", "tournament",
)  # fmt: skip
