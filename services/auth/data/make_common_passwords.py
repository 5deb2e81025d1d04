#!/usr/bin/env python3
"""Writes common_passwords.txt: what people type when a form asks for twelve characters.

Only entries of at least twelve characters matter, shorter ones are refused before the list is asked.
The list is made of the habits behind breached passwords (a well-known word with digits or a year, words
twice, walks over the keyboard, runs of digits), not copied from any breach. Lower case; the check folds
capitals and the usual letter-for-digit swaps itself.
"""
import itertools
import pathlib

MIN = 12
WORDS = """password passwort motdepasse contrasena contraseña parola welcome willkommen bienvenue letmein
administrator admin superuser superadmin root login changeme changeit default secret qwerty qwertz azerty iloveyou
sunshine princess football baseball basketball superman batman spiderman starwars pokemon dragon monkey
master shadow michael jennifer jessica charlie ashley daniel thomas jordan hunter killer trustno whatever
freedom liverpool chelsea arsenal barcelona juventus manchester london berlin paris america germany
summer winter spring autumn january february march april october november december monday friday
sommer herbst computer internet samsung apple google facebook microsoft windows linux oracle cisco
company business office service support helpdesk customer manager director backup everhold server
database postgres network security firewall testing tester test temp temporary guest user username
hello goodbye flower butterfly chocolate cookie cheese pepper ginger banana orange purple yellow
mustang ferrari porsche mercedes harley corvette yamaha phoenix thunder maverick ranger dallas
yankees lakers cowboys steelers eagles packers redsox blessed jesus christ faith angel forever
babygirl lovely beautiful family mother father daddy mommy sister brother friends""".split()
YEARS = [str(y) for y in range(1980, 2031)]
DIGITS = ["1", "12", "123", "1234", "12345", "123456", "1234567", "12345678", "123456789", "1234567890",
          "0123456789", "007", "69", "99", "111", "1111", "111111", "000", "0000", "321", "4321", "54321",
          "654321", "777", "7777", "666", "888", "8888", "00", "01", "11", "22", "33"]
MARKS = ["", "!", ".", "@", "#"]
SHORT = ["123", "1234", "12345", "123456", "12345678", "123456789", "1234567890", "111111", "654321", "000000"]
STRONG = [w for w in WORDS if w in {
    "password", "passwort", "welcome", "letmein", "administrator", "admin", "changeme", "qwerty", "iloveyou",
    "secret", "summer", "winter", "spring", "autumn", "master", "default", "login", "company", "backup",
    "everhold", "server", "test", "superuser", "root"}]
ROWS = ["qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop", "1234567890", "poiuytrewq",
        "lkjhgfdsa", "mnbvcxz", "0987654321", "1q2w3e4r5t6y", "1qaz2wsx3edc4rfv", "qazwsxedcrfv",
        "zaq12wsxcde3", "1q2w3e4r5t6y7u8i", "q1w2e3r4t5y6", "a1b2c3d4e5f6", "abcdefghijkl", "abcdefghijklmnop",
        "abcdefghijklmnopqrstuvwxyz", "aabbccddeeff", "123qweasdzxc", "qweasdzxc123", "qweasdzxcrfv"]
PHRASES = """correcthorsebatterystaple iloveyouforever ilovemyfamily ilovejesus123 iloveyousomuch
letmeinplease letmeinnow123 openthedoor123 thisismypassword mypasswordis123 mypassword123 mypassword1234
notmypassword passwordpassword passwordadmin adminpassword adminadminadmin administrator1 administrator123
rootpassword rootrootroot userpassword testpassword testtesttest defaultpassword temporarypassword
changethispassword changemeplease changemenow pleasechangeme nopassword123 welcometothejungle
welcomehome123 welcome2company supersecretpassword topsecret1234 verysecurepassword securepassword
strongpassword strongpassword123 longpassword123 newpassword1234 oldpassword1234 yourpassword123
masterpassword companypassword backuppassword backupbackup everholdeverhold everholdbackup maytheforcebewithyou
winteriscoming onceuponatime youshallnotpass tobeornottobe hellohellohello helloworld123 helloworld1234
manchesterunited realmadrid1234 liverpoolfc1234 fcbarcelona1234 jesuschrist123 godisgoodallthetime
qwertyqwerty qwerty123456 qwerty1234567 qwerty12345678 asdfasdfasdf asdf1234asdf zxcvzxcvzxcv
p@ssw0rd1234 passw0rd1234 pa55word1234 123456qwerty 123123123123 121212121212 112233445566
123321123321 147258369147 159753159753 789456123789 987654321987 102030405060 012345678910
123456abcdef abc123abc123 abcd1234abcd 1234abcd5678 aaa111bbb222 qqqwwweee111""".split()


def candidates():
    yield from PHRASES
    for word in WORDS:
        for digits, mark in itertools.product(SHORT, ("", "!")):
            yield word + digits + mark
        yield word + word
        yield word + word + word
        yield word + "password"
        for year in YEARS[40:]:
            yield word + year
    for word, tail, mark in itertools.product(STRONG, YEARS + DIGITS, MARKS):
        yield word + tail + mark
        yield word + mark + tail
    for row in ROWS:
        for tail in ["", *DIGITS, "!", *MARKS]:
            yield row + tail
        yield row + row
        yield row + row[::-1]
    for a, b in itertools.permutations(ROWS[:6], 2):
        yield a + b
    for n in range(MIN, 21):
        yield ("1234567890" * 3)[:n]
        yield ("0123456789" * 3)[:n]
        yield ("9876543210" * 3)[:n]
        for unit in ("ab", "abc", "12", "123", "1234", "qwe", "asd", "xyz", "qwer", "asdf"):
            yield (unit * 20)[:n]


out = pathlib.Path(__file__).with_name("common_passwords.txt")
out.write_text("".join(f"{p}\n" for p in sorted({c for c in candidates() if len(c) >= MIN})))
print(len(out.read_text().splitlines()), "entries")
