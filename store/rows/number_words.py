"""Words that make another number of the one before them, as alternatives of a pattern: percents, halves, thousands.

PERCENT and MULTIPLIERS are stems, which take endings of up to three letters.
"""

PERCENT = (
    "per ?cent|prozent(?:punkt)?|pro[cs]ent|protsent|prósent|pour ?cent|por ?ci?ent[oa]|процент|відсот|persen|peratus"
    "|points? de pourcentage|puntos? porcentual|pontos? percentua|punt[oi] percentual|százalék|posto|odsto"
    "|одсто|odstot|на сто|la sută|për qind|foiz|faiz|пайыз|хувь|τοις εκατό|phần trăm|տոկոս|პროცენტ"
    "|(?:في |ب)ال(?:مئة|مائة)|درصد|فی ?صد|אחוז|प्रतिशत|फ़ी ?सदी|फी ?सदी|टक्के|শতাংশ|ટકા|శాతం|சதவீத|சதவிகித|ശതമാനം|퍼센트"
)
PERCENT_SHORT = "pct|pst|prc|proc|proz|p\\. ?c|v\\. ?h|pk"  # without endings
PERCENT_BESIDE = (
    "パーセント|割|成(?=[的以左多半はのが]|\\P{L}|\\Z)|เปอร์เซ็นต์|ເປີເຊັນ|ភាគរយ|ရာခိုင်နှုန်း|百分点|[個个]百分[点點]"
)
# Thousands, millions and above, as CLDR's compact numbers have them in the larger languages
MULTIPLIERS = (
    "hundred|thousand|[mb]illion|(?:tr|quadr)illion|milliard|dozen|lakh|crore|tausend|hundert|dutzend|douzaine|dozzin|docena"
    "|d[uú]zia|dozijn|[mb]ill[oó]n|trill[oó]n|(?:[mb]|tr)il(?:hão|hõe|ião|iõe)|[mb]ilion|trilion|miliard|milioan|milijun"
    "|milijon|milijard|tisuć|tisoč|hiljad|tūkst|[mb]iljoe?n|miljard|duizend|duisend|tusen|tusind|hundra|þúsund|milljón"
    "|tysiąc|tysięc|tisíc|tuhat|tuhann|miljoon|biljoon|ezer|millió|milliárd|[mt]r?ilyon|milyar|bilyon|ribu|juta|miliar"
    "|triliun|nghìn|ngàn|triệu|t[ỷỉ]|тысяч|миллион|миллиард|триллион|дюжин|тисяч|мільйон|мільярд|хиляд|милион|милиард|хиљад"
    "|илјад|χιλιάδ|εκατομμύρι|δισεκατομμύρι|ألف|آلاف|مليون|ملايين|مليار|تريليون|هزار|میلیون|میلیارد|ہزار|لاکھ|کروڑ|ملین"
    "|אלף|אלפי|מיליו[ןנ]|מיליארד|हज़ार|हजार|लाख|करोड़|कोटी|मिलियन|হাজার|লাখ|লক্ষ|কোটি|மில்லியன்|லட்சம்|கோடி|లక్ష|కోట్ల"
)
WHOLE_MULTIPLIERS = (  # mostly CLDR's short forms
    "mil|mila|mille|mii|bin|mio|mia|mlr|mrd|mjd|mld|mlrd|mljrd|tsd|tis|tys|tuh|tn|mn|mln|bn|bln|trl|trn|trln|milj"
    "|bilj|trilj|mill|hilj|jt|rb|mijë|мың|миң|тыс|тис|хил|хиљ|илј|мил|милј|млн|млд|млрд|трлн|мянга|сая|χιλ|εκ|δισ"
    "|հզր|մլն|մլրդ|ათ|მლნ|მლრდ|अरब|क॰|अ॰|만|억|조|mds?|(?-i:[kKM](?: ?[€$£]| d(?=['’])))"
)
PARTS = (  # halves, thirds and quarters beside a whole
    "and[ -](?:(?:an?|one)[ -](?:half|third|quarter)|two[ -]thirds|three[ -]quarters)|et (?:demie?"
    "|(?:un |trois )?quarts?|(?:un|deux) tiers)|und (?:eine? |drei ?|zwei )?(?:einhalb|halb|viertel|drittel)"
    "|y (?:medi[oa]|(?:un )?(?:cuarto|tercio)|tres cuartos|dos tercios)|e (?:mezz[oa]|(?:un )?(?:quarto|terzo)"
    "|tre quarti|due terzi|mei[oa]|(?:um )?terço|três quartos|dois terços)|en (?:een )?(?:hal[fv]e?|kwart)|en driekwart"
    "|(?:och|og) (?:en |et )?(?:halv[at]?|kvarts?)|i (?:pół|pol|ćwierć)|a (?:půl|pol|čtvrt)|ja (?:puoli|pool)"
    "|és (?:fél|negyed)|[sșş]i (?:jumătate|un sfert)|(?:bir )?buçuk|setengah|rưỡi|[ис] (?:половин(?:а|ой)|четвертью?)"
    "|[із] (?:половин(?:а|ою)|чверть|чвертю)|και (?:μισ[όή]|τέταρτο)|و ?(?:نصف|ثلث|ربع|نیم)|ו(?:חצי|שליש|רבע)"
)
