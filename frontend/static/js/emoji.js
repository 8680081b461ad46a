// Short names for what people put into a journal; not all there are. A name may stand for several.
const NAMES = `
smile 😄 grin 😁 joy 😂 laugh 😆 rofl 🤣 blush 😊 innocent 😇 slight_smile 🙂 upside_down 🙃 wink 😉 relieved 😌
in_love 😍 kiss 😘 yum 😋 tongue 😛 crazy 🤪 nerd 🤓 cool 😎 star_struck 🤩 party_face 🥳 smirk 😏 unamused 😒
disappointed 😞 pensive 😔 worried 😟 confused 😕 frown ☹️ persevere 😣 weary 😩 pleading 🥺 cry 😢 sob 😭
huff 😤 angry 😠 rage 😡 exploding_head 🤯 flushed 😳 hot_face 🥵 cold_face 🥶 scared 😱 fearful 😨 sweat 😓
hug 🤗 thinking 🤔 shush 🤫 neutral 😐 grimace 😬 eye_roll 🙄 surprised 😮 astonished 😲 sleepy 😪 sleeping 😴
yawn 🥱 drool 🤤 dizzy_face 😵 nausea 🤢 sneeze 🤧 mask 😷 fever 🤒 hurt 🤕 melting 🫠 ghost 👻 skull 💀 robot 🤖
clap 👏 wave 👋 ok_hand 👌 victory ✌️ crossed_fingers 🤞 point_up ☝️ point_right 👉 point_down 👇 point_left 👈
thumbs_up 👍 thumbs_down 👎 fist ✊ muscle 💪 pray 🙏 handshake 🤝 writing ✍️ raised_hand ✋ shrug 🤷 facepalm 🤦
eyes 👀 ear 👂 brain 🧠 tooth 🦷 bone 🦴 footprints 👣 baby 👶 child 🧒 woman 👩 man 👨 family 👪 couple 💑
heart ❤️ orange_heart 🧡 yellow_heart 💛 green_heart 💚 blue_heart 💙 purple_heart 💜 black_heart 🖤 white_heart 🤍
broken_heart 💔 two_hearts 💕 sparkling_heart 💖 letter_heart 💌 star ⭐ glowing_star 🌟 sparkles ✨ fire 🔥 boom 💥
droplet 💧 wave_water 🌊 rainbow 🌈 sun ☀️ sunrise 🌅 sunset 🌇 partly_cloudy ⛅ cloud ☁️ rain 🌧️ storm ⛈️ lightning ⚡
snow ❄️ snowman ⛄ fog 🌫️ wind 💨 umbrella ☔ thermometer 🌡️ moon 🌙 full_moon 🌕 new_moon 🌑 night 🌃 milky_way 🌌
comet ☄️ earth 🌍 volcano 🌋 mountain ⛰️ beach 🏖️ island 🏝️ desert 🏜️ camping 🏕️ forest 🌲 tree 🌳 palm 🌴 cactus 🌵
seedling 🌱 herb 🌿 clover 🍀 leaf 🍃 fallen_leaf 🍂 maple_leaf 🍁 mushroom 🍄 blossom 🌸 rose 🌹 sunflower 🌻 tulip 🌷
bouquet 💐 dog 🐶 cat 🐱 mouse 🐭 rabbit 🐰 fox 🦊 bear 🐻 panda 🐼 tiger 🐯 lion 🦁 cow 🐮 pig 🐷 frog 🐸 monkey 🐵
chicken 🐔 penguin 🐧 bird 🐦 chick 🐤 duck 🦆 owl 🦉 eagle 🦅 swan 🦢 bat 🦇 wolf 🐺 horse 🐴 unicorn 🦄 bee 🐝 bug 🐛
butterfly 🦋 snail 🐌 ladybird 🐞 ant 🐜 spider 🕷️ turtle 🐢 snake 🐍 dinosaur 🦕 octopus 🐙 fish 🐟 dolphin 🐬 whale 🐳
elephant 🐘 sheep 🐑 goat 🐐 deer 🦌 squirrel 🐿️ hedgehog 🦔 paw_prints 🐾 feather 🪶
apple 🍎 pear 🍐 orange 🍊 lemon 🍋 banana 🍌 watermelon 🍉 grapes 🍇 strawberry 🍓 cherries 🍒 peach 🍑 pineapple 🍍
tomato 🍅 avocado 🥑 aubergine 🍆 potato 🥔 carrot 🥕 corn 🌽 chilli 🌶️ broccoli 🥦 garlic 🧄 onion 🧅 bread 🍞
croissant 🥐 cheese 🧀 egg 🍳 bacon 🥓 pancakes 🥞 burger 🍔 fries 🍟 pizza 🍕 sandwich 🥪 taco 🌮 salad 🥗 soup 🍲
noodles 🍜 spaghetti 🍝 sushi 🍣 rice 🍚 curry 🍛 ice_cream 🍦 doughnut 🍩 biscuit 🍪 cake 🍰 birthday 🎂 chocolate 🍫
honey 🍯 milk 🥛 coffee ☕ tea 🍵 wine 🍷 beer 🍺 cheers 🥂 cocktail 🍸 water_glass 🥤 salt 🧂 fork_knife 🍴
football ⚽ basketball 🏀 tennis 🎾 running 🏃 walking 🚶 cycling 🚴 swimming 🏊 yoga 🧘 climbing 🧗 skiing ⛷️ skating ⛸️
sailing ⛵ medal 🏅 trophy 🏆 target 🎯 dice 🎲 chess ♟️ puzzle 🧩 game 🎮 art 🎨 theatre 🎭 film 🎬 camera 📷 music 🎵
singing 🎤 headphones 🎧 guitar 🎸 piano 🎹 violin 🎻 drum 🥁 dancing 💃 balloon 🎈 party 🎉 gift 🎁 ribbon 🎀
car 🚗 taxi 🚕 bus 🚌 train 🚆 tram 🚊 bicycle 🚲 motorcycle 🏍️ plane ✈️ rocket 🚀 ship 🚢 boat 🚤 anchor ⚓ fuel ⛽
house 🏠 garden 🏡 office 🏢 hospital 🏥 school 🏫 church ⛪ castle 🏰 bridge 🌉 city 🏙️ tent ⛺ map 🗺️ compass 🧭
luggage 🧳 bed 🛏️ sofa 🛋️ door 🚪 bath 🛁 shower 🚿 broom 🧹 laundry 🧺 soap 🧼 key 🔑 lock 🔒 bulb 💡 candle 🕯️
phone 📱 computer 💻 printer 🖨️ clock 🕰️ alarm ⏰ hourglass ⏳ calendar 📅 book 📖 books 📚 notebook 📓 newspaper 📰
pencil ✏️ pen 🖊️ memo 📝 letter ✉️ envelope 📩 package 📦 pin 📌 paperclip 📎 scissors ✂️ ruler 📏 magnifier 🔍
hammer 🔨 wrench 🔧 gear ⚙️ toolbox 🧰 magnet 🧲 microscope 🔬 telescope 🔭 pill 💊 bandage 🩹 syringe 💉 money 💰
chart 📈 chart_down 📉 shopping 🛒 shirt 👕 dress 👗 shoes 👟 boots 🥾 hat 🎩 glasses 👓 ring 💍 crown 👑 bag 👜 yarn 🧶
check ✅ cross ❌ warning ⚠️ question ❓ exclamation ❗ hundred 💯 plus ➕ minus ➖ infinity ♾️ recycle ♻️ peace ☮️
yin_yang ☯️ arrow_right ➡️ arrow_left ⬅️ arrow_up ⬆️ arrow_down ⬇️ repeat 🔁 speech 💬 thought 💭 bell 🔔 no_bell 🔕
zzz 💤 music_notes 🎶 sweat_drops 💦 flag 🏁 white_flag 🏳️ rainbow_flag 🏳️‍🌈
`;

const words = NAMES.trim().split(/\s+/);
const all = words.flatMap((name, place) => (place % 2 ? [] : [[name, words[place + 1]]]));

/** The emoji of exactly this name, or undefined. */
export const emojiOf = (name) => all.find(([known]) => known === name)?.[1];

/** At most so many [name, emoji], first those whose name begins with it, then those with a word that does. */
export function emojiLike(start, most) {
  const wanted = start.toLowerCase();
  const begins = all.filter(([name]) => name.startsWith(wanted));
  const within = all.filter(([name]) => !name.startsWith(wanted) && name.includes(`_${wanted}`));
  return [...begins, ...within].slice(0, most);
}
